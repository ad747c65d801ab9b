"""Make text from outside harmless before it is shown: text of suites, models, adapters, runs and error messages.

Control characters can clear a terminal, write its clipboard or hide text; marks of text direction can make text look
like other text.
"""

from __future__ import annotations

import re

_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\ufffe\uffff\U000e0000-\U000e007f]"
)
_CONTROL_NAMES = re.findall(
    r"\w+",
    "NUL SOH STX ETX EOT ENQ ACK BEL BS TAB LF VT FF CR SO SI "
    "DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US",
)


def visible(text: str) -> str:
    """Replace control characters, text-direction marks and lone surrogates by their names, such as ‹ESC›.

    Unicode's own pictures of control characters are not used, because many fonts lack them.
    """
    return _INVISIBLE.sub(_symbol, text.replace("\r\n", "\n"))


def _symbol(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"‹{_CONTROL_NAMES[code]}›" if code < len(_CONTROL_NAMES) else f"‹U+{code:04X}›"
