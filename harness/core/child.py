"""`python -P -m harness.core.child MODULE ARGUMENTS`: runs a module as a program that ends with its parent.

The kernel is asked before the module is imported: importing torch takes seconds, in which the parent can be killed.
"""

from __future__ import annotations

import runpy
import sys

from harness.core.programs import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
