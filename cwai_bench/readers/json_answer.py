"""What tools print when they are asked for JSON, whoever made them."""

from __future__ import annotations

import msgspec

from cwai_bench.readers import Unreadable


def decoded(text: str) -> object:
    """The one JSON value that ``text`` is. Raises Unreadable."""
    try:
        found: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError) as e:
        raise Unreadable(f"expected JSON: {e}") from None
    return found


def decoded_object(text: str) -> dict[str, object]:
    """The one JSON object that ``text`` is. Raises Unreadable."""
    found = decoded(text)
    if not isinstance(found, dict):
        raise Unreadable("expected a JSON object")
    return found


def count(value: object) -> int | None:
    """A whole number of zero or more, also when it is written as text; None for all else (``N/A``)."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 40:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
