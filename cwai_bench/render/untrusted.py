"""Text that came from a node is hostile: it may hold terminal escapes, HTML, or marks that turn the reading order.

Here it becomes text that no terminal, browser or reader is misled by; what was there stays readable as an escape
(``\\x1b``, ``\\u202e``). Markup is the business of each format, which escapes it in its own way.
"""

from __future__ import annotations

import unicodedata
from typing import TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)

LINE_LIMIT = 1024
"""Characters of a value, a name or a message that are shown."""
BLOCK_LIMIT = 4096
"""Characters of a piece of evidence that are shown."""

_KEEP_LINES = frozenset({"text", "en", "zh"})
"""Fields that may run over several lines: evidence, and our own words."""

# Control and format characters (among them ESC, the C1 controls and the marks of text direction), halves of
# surrogate pairs, private and unassigned code points, line and paragraph separators.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def neutral(text: str, *, limit: int = LINE_LIMIT, lines: bool = False) -> str:
    """``text`` with every character that does not simply print written as an escape, at most ``limit`` long.

    With ``lines``, line feeds and tabs stay. The result holds no character that is illegal in XML.
    """
    cut = text[: limit + 1]
    if not cut.isprintable():
        cut = "".join(_escape(c, lines) for c in cut)
    return cut if len(text) <= limit else cut[:limit] + "…"


def _escape(c: str, lines: bool) -> str:
    if c.isprintable() or (lines and c in "\n\t"):
        return c
    if c == "\u3000":  # the ideographic space: not printable to Python, harmless and common in Chinese
        return c
    category = unicodedata.category(c)
    if category == "Zs":
        return " "
    if category not in _UNSAFE:
        return c
    code = ord(c)
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\u{code:04x}" if code > 0xFF else {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(c, f"\\x{code:02x}")


def neutral_struct(value: T) -> T:
    """The same value with every string in it neutral: no format can forget one."""
    return msgspec.convert(_walk(msgspec.to_builtins(value), ""), type(value))


_HOLDS_TEXT = (str, dict, list)


def _walk(value: object, key: str) -> object:
    if isinstance(value, str):
        lines = key in _KEEP_LINES
        return neutral(value, limit=BLOCK_LIMIT if lines else LINE_LIMIT, lines=lines)
    if isinstance(value, dict):
        return {neutral(str(k)): _walk(v, str(k)) for k, v in value.items()}
    if isinstance(value, list):
        # A matrix holds a million numbers, which are harmless.
        return [_walk(v, key) if isinstance(v, _HOLDS_TEXT) else v for v in value]
    return value
