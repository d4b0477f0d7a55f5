"""The health log of NVMe drives, as nvme-cli and smartctl print it in JSON.

Formats: nvme-cli, Documentation/nvme-smart-log.txt (``nvme smart-log DEV -o json``); smartmontools 7, ``smartctl -j -a
DEV``: nvme_smart_health_information_log. Both show the SMART / Health Information log page of the NVM Express base
specification.
"""

from __future__ import annotations

import msgspec

from cwai_bench.readers import Unreadable
from cwai_bench.readers.json_answer import count, decoded_object


class DriveHealth(msgspec.Struct, frozen=True):
    """``warning`` is the Critical Warning byte; ``spare``, ``threshold`` and ``used`` are percentages."""

    warning: int
    spare: int | None
    threshold: int | None
    used: int | None
    media_errors: int | None


def drive_health(text: str) -> DriveHealth:
    """The health of one drive, by either tool. Raises Unreadable, also when no critical warning byte is told."""
    told = decoded_object(text)
    inner = told.get("nvme_smart_health_information_log", told)
    if not isinstance(inner, dict):
        raise Unreadable("expected the NVMe health log")

    def first(*names: str) -> int | None:
        return next((n for n in (count(inner.get(name)) for name in names) if n is not None), None)

    warning = inner.get("critical_warning")
    # nvme-cli -v writes the bits apart, and the byte as "value"
    byte = count(warning.get("value") if isinstance(warning, dict) else warning)
    if byte is None:
        raise Unreadable("the health log has no critical_warning")
    return DriveHealth(
        byte,
        first("avail_spare", "available_spare"),
        first("spare_thresh", "available_spare_threshold"),
        first("percent_used", "percentage_used"),
        first("media_errors"),
    )
