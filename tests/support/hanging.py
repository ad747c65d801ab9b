"""A module that hangs in native code while it is imported: the pattern keeps Python's lock, so nothing else runs."""

import re

print("hung", flush=True)
re.match("(a*)*b", "a" * 60)
