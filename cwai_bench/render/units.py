"""Pretty units, made where a person reads: seconds and bytes become us, Gb/s, GB/s, KiB, hh:mm:ss.

Networks are quoted in Gb/s (1e9 bits per second), collectives in GB/s (1e9 bytes per second, as nccl-tests and
hccl_test do), sizes in powers of two.
"""

from __future__ import annotations

import math
import time


def number(value: float, digits: int = 4) -> str:
    """``value`` with ``digits`` significant digits, never in scientific notation: 148.7, 0.5213, 10443."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, min(places, 9))}f}"


def short(value: float) -> str:
    """For an axis: at most four significant digits, none of them an idle zero: 0.001, 25, 148.7."""
    text = number(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def microseconds(seconds: float) -> str:
    return number(seconds * 1e6)


def gigabits(bytes_per_second: float) -> str:
    return number(bytes_per_second * 8 / 1e9)


def gigabytes(bytes_per_second: float) -> str:
    return number(bytes_per_second / 1e9)


def size(count: int) -> str:
    """Bytes in the largest power-of-two unit that is not below one: 8 B, 64 KiB, 1.5 GiB."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"


def hms(seconds: float) -> str:
    """``hh:mm:ss``; what ended before it started took no time."""
    whole = max(0, round(seconds))
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def span(seconds: float) -> str:
    """A short duration for a sentence: 0.4 s, 12 s, 00:03:20."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    return f"{round(seconds)} s" if seconds < 120 else hms(seconds)


def offset(utc_offset: int) -> str:
    """Seconds east of UTC as ``+08:00``."""
    sign, minutes = "-" if utc_offset < 0 else "+", abs(utc_offset) // 60
    return f"{sign}{minutes // 60:02d}:{minutes % 60:02d}"


def utc(epoch: float) -> str:
    """``2026-01-31 23:59:59 UTC``."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(epoch))


def local(epoch: float, utc_offset: int) -> str:
    """``2026-02-01 07:59:59 +08:00``: the wall clock where the run was made."""
    return time.strftime("%Y-%m-%d %H:%M:%S ", time.gmtime(epoch + utc_offset)) + offset(utc_offset)


def clock(epoch: float) -> str:
    """The time of day in UTC with milliseconds, for a list of events: 23:59:59.123."""
    millis = math.floor(epoch * 1000)
    return time.strftime("%H:%M:%S", time.gmtime(millis // 1000)) + f".{millis % 1000:03d}"
