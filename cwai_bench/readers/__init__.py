"""Readers of other people's text: what vendors' commands and files say, as values.

One file, one vendor or family. A reader is a pure function: text in, values of its own structs out. It raises
:class:`Unreadable` for text that is not what it should be, and nothing else, whatever the text is: cut short, in
another locale, with Windows line ends, binary. A field that the text does not hold is None, never a zero or a default;
what a tool says it does not support (``[N/A]``, ``not supported``) is None as well.

The source of each format is named beside its reader.
"""

from __future__ import annotations


class Unreadable(ValueError):
    """The text is not what it should be. The message says what was expected; the checks make it UNKNOWN(parse)."""
