"""Two processes that exchange messages through NCCL's net plugin (``net_plugin_program``), and what both saw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cwai_bench import native

PROGRAM = Path(__file__).with_name("net_plugin_program.py")
THREE_PATHS = {"CWAI_NET_PATHS": "127.0.0.1,127.0.0.2,127.0.0.3", "CWAI_NET_TIMEOUT": "30"}
PATIENCE = 100.0


def exchange(
    during: Callable[[list[subprocess.Popen[str]]], None] = lambda both: None,
    *,
    environment: dict[str, str] = THREE_PATHS,
    before: Sequence[Sequence[str]] = ((), ()),
    alone: bool = False,
    **options: Any,
) -> list[dict[str, Any]]:
    """``during`` is called with both processes once handles were exchanged; ``before`` goes before the command of each.
    The end of a process that was killed is ``{}``. ``alone``: one process has both ends."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NCCL_", "CTCCL_", "CWAI_"))}
    chosen = {
        "plugin": str(native.net_plugin()),
        "version": 12,
        "comms": 2,
        "messages": 40,
        "largest": 1 << 20,
        "seed": "cwai",
        "fault": "",
        "faults": 0,
        "hold": False,
        "alone": alone,
        "timeout": PATIENCE - 20,
        **options,
    }
    both = [
        subprocess.Popen(
            [*before[me], sys.executable, str(PROGRAM), json.dumps({**chosen, "me": me})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**kept, **environment},
        )
        for me in ((0,) if alone else (0, 1))
    ]
    try:
        handles = [one.stdout.readline() for one in both if one.stdout is not None]
        for one, theirs in zip(both, reversed(handles), strict=True):
            assert one.stdin is not None
            one.stdin.write(theirs)
            one.stdin.flush()
        during(both)
        told = [one.communicate(timeout=PATIENCE)[0].splitlines() for one in both]
    finally:
        for one in both:
            one.kill()
            one.wait()
    return [json.loads(lines[-1]) if one.returncode == 0 else {} for one, lines in zip(both, told, strict=True)]


def intact(saw: Sequence[dict[str, Any]], count: int) -> None:
    """Every message came, once, whole. Prints what happened."""
    for one in saw:
        print({name: value for name, value in one.items() if name != "log"})
        assert one.get("failed", "ended") is None, "\n".join(one.get("log", []))
        assert (one["messages"], one["wrong"]) == (count, 0)
