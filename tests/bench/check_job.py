"""The server check of a recorded node whose commands are run: each is a process that takes its time, then says what was
recorded of it. Arguments: the folder of those programs, and what ``cwai-bench`` is to be given.
"""

from __future__ import annotations

import os
import shlex
import sys
from functools import partial
from pathlib import Path

from cwai_bench import discover
from cwai_bench.cli.main import entry
from cwai_bench.discover import command
from cwai_bench.model import Reading
from cwai_bench.sources import Command

HANGS = 600.0
"""Seconds that a command takes which is not to answer in time."""


def write_programs(folder: Path, root: Path, seconds: float, hanging: tuple[str, ...] = ()) -> int:
    """A program in ``folder`` for each that was recorded below ``root``; how many commands they know.

    ``hanging``: words of the command that does not answer.
    """
    known: dict[str, list[str]] = {}
    for recorded in sorted((root / "commands").iterdir()):
        words = (recorded / "argv").read_text().removesuffix("\n").split("\n")
        takes = HANGS if tuple(words) == hanging else seconds
        answer = (
            f"  {shlex.quote(' '.join(words[1:]))}) sleep {takes:g}; cat {shlex.quote(str(recorded / 'stderr'))} >&2;"
            f" cat {shlex.quote(str(recorded / 'stdout'))}; exit {(recorded / 'exit').read_text().strip() or 0};;"
        )
        known.setdefault(words[0], []).append(answer)
    folder.mkdir()
    for program, answers in known.items():
        script = folder / program
        script.write_text("\n".join(["#!/bin/sh", 'case "$*" in', *answers, "esac", "exit 127", ""]))
        script.chmod(0o755)
    return sum(map(len, known.values()))


def run(programs: Path, asked: Command, timeout: float) -> Reading:
    if not (programs / asked.argv[0]).exists():  # it was not on the node, whatever is on this machine
        return Reading(asked.key, "missing", detail="not recorded")
    return command.run(asked, timeout)


def main() -> int:
    programs = Path(sys.argv[1])
    os.environ["PATH"] = f"{programs}:/usr/bin:/bin"
    discover.read_node = partial(discover.read_node, run=partial(run, programs))
    return entry(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
