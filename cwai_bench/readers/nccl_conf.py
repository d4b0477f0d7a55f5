"""Files of settings for NCCL (``/etc/nccl.conf``, ``~/.nccl.conf``), as the library itself reads them.

Format: NVIDIA/nccl, src/misc/param.cc, setEnvFile: a line is a name, ``=`` and a value, both as they stand, blanks and
quotes with them; one that begins with ``#`` is a comment; one without ``=`` is passed over in silence.
"""

from __future__ import annotations

from typing import NamedTuple

LINE_LIMIT, PART_LIMIT = 4095, 1023
LINES_LIMIT = 4096


class Line(NamedTuple):
    """``number`` counts from 1. ``name`` is None of a line that the library passes over though it says something."""

    number: int
    name: str | None
    value: str


def nccl_conf(text: str) -> list[Line]:
    """The lines that say something, at most ``LINES_LIMIT``. There is no text that it cannot read."""
    found: list[Line] = []
    for number, line in enumerate(text.split("\n")[:LINES_LIMIT], 1):
        said = line.removesuffix("\r")[:LINE_LIMIT]
        if said.startswith("#") or not said.strip():
            continue
        name, sign, value = said.partition("=")
        found.append(Line(number, name[:PART_LIMIT] if sign else None, value[:PART_LIMIT] if sign else said[:80]))
    return found
