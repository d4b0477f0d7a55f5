"""``/proc/PID/maps`` and ``/proc/PID/environ``: what a process has mapped, and what it was started with.

Format: proc_pid_maps(5), proc_pid_environ(5). The second is what the process was given, and not what it has set since.
"""

from __future__ import annotations

import re

from cwai_bench.readers import Unreadable

GONE = " (deleted)"
_MAPPED = re.compile(r"[0-9a-f]{8,16}-[0-9a-f]{8,16} [r-][w-][x-][ps] [0-9a-f]+ [0-9a-f:]+ +\d+ *(?P<path>.*)")


def mapped_files(text: str) -> dict[str, bool]:
    """The files that are mapped, in order, and whether each is still there under its name. Raises Unreadable."""
    found: dict[str, bool] = {}
    for line in text.splitlines():
        told = _MAPPED.fullmatch(line)
        if told is None:
            raise Unreadable(f"no line of maps: {line[:60]!r}")
        path = told["path"]
        if path.startswith("/"):
            found.setdefault(path.removesuffix(GONE), not path.endswith(GONE))
    return found


def variables(text: str) -> dict[str, str]:
    """The environment; of a name that stands there twice the first counts, as getenv(3) finds it."""
    found: dict[str, str] = {}
    for entry in text.split("\0"):
        name, sign, value = entry.partition("=")
        if sign and name:
            found.setdefault(name, value)
    return found
