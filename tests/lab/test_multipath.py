"""The multipath engine over real links between two hosts: what it carries, and what becomes of it when one is cut."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lab.paths import Paths

pytestmark = pytest.mark.lab("tc")

PROGRAM = Path(__file__).with_name("path_program.py")
MEGABYTE = 1_000_000


def transfer(
    paths: Paths, size: int, during: Callable[[], None] | None = None, **options: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What both ends saw of one transfer of ``size`` bytes; ``during`` runs once it is under way."""

    def start(side: int, what: str, arguments: dict[str, Any]) -> subprocess.Popen[str]:
        command = [*paths.enter(side), sys.executable, str(PROGRAM), what, json.dumps(arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    connections = options.get("connections", 1)
    receiver = start(1, "receive", {"addresses": paths.right, "bytes": size, "connections": connections, "timeout": 60})
    assert receiver.stdout is not None
    routes = list(zip(paths.left, paths.right, json.loads(receiver.stdout.readline()), strict=True))
    sender = start(0, "send", {"routes": routes, "bytes": size, "timeout": 60, **options})
    beside = threading.Thread(target=during) if during else None
    if beside:
        beside.start()
    sent, received = sender.communicate(timeout=90)[0], receiver.communicate(timeout=90)[0]
    if beside:
        beside.join()
    return json.loads(sent), json.loads(received)


@pytest.mark.parametrize("policy", ["pull", "weighted", "round_robin", "equal", "single"])
def test_every_policy_delivers_every_byte_over_unequal_links(policy: str) -> None:
    with Paths([160, 80, 40]) as paths:
        sent, received = transfer(
            paths, 4 * MEGABYTE, policy=policy, weights=paths.rates if policy == "weighted" else []
        )
    assert (sent["ended"], received["ended"]) == (None, None)
    assert (received["complete"], received["wrong"]) == (1, 0)
    assert sum(path["delivered"] for path in sent["paths"]) == 4 * MEGABYTE
    if policy != "single":
        assert all(path["delivered"] for path in sent["paths"])


def test_a_path_of_several_connections_is_told_as_one() -> None:
    with Paths([80, 40]) as paths:
        sent, received = transfer(paths, 16 * MEGABYTE, connections=4)
    assert (sent["ended"], received["ended"], received["wrong"]) == (None, None, 0)
    assert sum(path["delivered"] for path in sent["paths"]) == 16 * MEGABYTE
    assert all(path["delivered"] and path["state"] == "healthy" for path in sent["paths"])
    assert len(received["paths"]) == 2
    joined = {(event["path"], event["connection"]) for event in received["events"] if event["cause"] == "connected"}
    assert joined == {(path, connection) for path in range(2) for connection in range(4)}


def test_a_link_that_is_cut_and_healed_loses_nothing() -> None:
    with Paths([80, 80]) as paths:

        def cut() -> None:
            time.sleep(1.0)
            paths.cut(0)
            time.sleep(1.0)
            paths.heal(0)

        sent, received = transfer(paths, 40 * MEGABYTE, cut)
    assert (sent["ended"], received["ended"]) == (None, None)
    assert (received["complete"], received["wrong"]) == (1, 0)
    assert sum(path["delivered"] for path in sent["paths"]) == 40 * MEGABYTE
    assert any(event["path"] == 0 and event["cause"] == "stalled" for event in sent["events"])


def test_when_no_link_is_left_the_run_ends_in_time_and_says_what_was_delivered() -> None:
    with Paths([80, 80]) as paths:

        def cut() -> None:
            time.sleep(1.0)
            paths.cut(0)
            paths.cut(1)

        sent, _received = transfer(paths, 60 * MEGABYTE, cut, timeout=5)
    assert sent["ended"] is not None
    assert len(sent["times"]) == 0
    assert 0 < sent["delivered"] < 60 * MEGABYTE
    assert {path["state"] for path in sent["paths"]} <= {"suspect", "failed"}


def test_planted_faults_are_survived_and_told() -> None:
    faults = [
        {"path": 0, "kind": "reset", "begin": 0.2, "end": 0.25},
        {"path": 1, "kind": "corrupt", "begin": 0.1},
        {"path": 2, "kind": "slow", "begin": 0.1, "end": 0.6, "rate": 1e6},
    ]
    with Paths([80, 80, 80]) as paths:
        sent, received = transfer(paths, 20 * MEGABYTE, faults=faults)
    assert (sent["ended"], received["wrong"], received["complete"]) == (None, 0, 1)
    causes = {(event["path"], event["cause"]) for event in sent["events"]}
    assert {(0, "error"), (0, "connected"), (1, "corrupt")} <= causes
    assert received["paths"][1]["corrupt"] == 1
