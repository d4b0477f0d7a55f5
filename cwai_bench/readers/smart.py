"""What a SATA or SAS drive says of its own health, as smartctl prints it in JSON.

Format: smartmontools 7, ``smartctl -j -H DEV``: smart_status.passed, and the messages of smartctl(8) itself.
"""

from __future__ import annotations

from typing import NamedTuple

from cwai_bench.readers import Unreadable
from cwai_bench.readers.json_answer import decoded_object


class SmartStatus(NamedTuple):
    """``passed`` is None for what keeps no status (a virtual drive, a card reader); ``message``: smartctl's own."""

    passed: bool | None
    message: str


def smart_status(text: str) -> SmartStatus:
    """Raises Unreadable for what is not smartctl's JSON."""
    told = decoded_object(text)
    head = told.get("smartctl")
    if not isinstance(head, dict):
        raise Unreadable("expected the JSON of smartctl")
    messages = head.get("messages")
    said = [m.get("string") for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []
    status = told.get("smart_status")
    passed = status.get("passed") if isinstance(status, dict) else None
    if passed is not None and not isinstance(passed, bool):
        raise Unreadable("smart_status.passed is neither true nor false")
    return SmartStatus(passed, "; ".join(str(s) for s in said if s)[:200])
