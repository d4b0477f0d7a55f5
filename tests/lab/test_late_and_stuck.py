"""Collectives over two nodes of which one rank comes late, or stops: it is named, and nobody else."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lab.nodes import VENV, Lab, Node

pytestmark = [pytest.mark.lab("sshd"), pytest.mark.mpi]

TOOL = str(VENV / "bin" / "cwai-bench")
ATTEMPTS = 3
"""Whoever else uses the CPUs of this machine makes ranks late as well."""
SWEEP = ["collective", "--operations", "all_reduce", "-b", "8", "-e", "4K", "-f", "8", "-n", "200"]


def reports(lab: Lab) -> list[Path]:
    return list((lab.folder / "store").glob("[0-9]*/report.json"))


def report_of(lab: Lab) -> dict[str, Any]:
    (saved,) = reports(lab)
    report: dict[str, Any] = json.loads(saved.read_text())
    return report


def named(report: dict[str, Any]) -> set[tuple[str, str]]:
    """Subjects and nodes of the verdicts of probes that are no PASS."""
    return {
        (v["subject"]["id"], ",".join(v["nodes"]))
        for v in report["verdicts"]
        if v["check"].startswith("mpi.") and v["status"] != "PASS"
    }


@pytest.mark.parametrize(("per_node", "rank", "by"), [(1, 1, "1ms"), (2, 3, "10ms"), (4, 6, "10ms")])
def test_a_rank_that_comes_late_is_named(two_nodes: Lab, per_node: int, rank: int, by: str) -> None:
    """By 1 ms where each has a CPU, by 10 ms where ranks outnumber them; over 200 iterations."""
    words: list[str | Path] = [
        *SWEEP,
        "--rehearse",
        f"late:{rank}:{by}",
        "--item-timeout",
        "120",
        "--store",
        two_nodes.folder / "store",
    ]
    node = f"node{rank // per_node + 1}"
    seen = []
    for attempt in range(ATTEMPTS):
        store = two_nodes.folder / f"store{attempt}"
        words[-1] = store
        done = two_nodes.run(two_nodes.nodes[0], [*two_nodes.mpirun(per_node), TOOL, *words], timeout=300)
        (saved,) = store.glob("[0-9]*/report.json")
        seen.append(named(json.loads(saved.read_text())))
        if seen[-1] == {(f"{node}/rank{rank}", node)}:
            return
    pytest.fail(f"named were {seen}; {done.stderr}")


def rank_on(lab: Lab, node: Node) -> str:
    """The process of the rank of ``node``: that which the launcher there has started, not its keeper."""
    listing = lab.run(node, ["ps", "-e", "-o", "pid=,ppid=,args="]).stdout
    rows = [line.split(maxsplit=2) for line in listing.splitlines()]
    launchers = {pid for pid, _parent, args in rows if "prted" in args.split()[0]}
    (rank,) = [pid for pid, parent, args in rows if parent in launchers and "cwai-bench" in args]
    return rank


def test_a_rank_that_is_stopped_on_another_node_is_named_within_ten_seconds(two_nodes: Lab) -> None:
    lab = two_nodes
    words: list[str | Path] = [
        "collective",
        "--operations",
        "all_reduce",
        "-e",
        "16M",
        "-n",
        "20000",
        "--store",
        lab.folder / "store",
    ]
    process = lab.start(lab.nodes[0], [*lab.mpirun(), TOOL, *words])
    deadline = time.monotonic() + 60
    while '"measurement"' not in lab.run(lab.nodes[1], ["sh", "-c", "cat /var/tmp/cwai-bench-*/*/*.jsonl"]).stdout:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no measurement within 60 s"
        time.sleep(0.2)
    stopped = time.time()
    assert lab.run(lab.nodes[1], ["kill", "-STOP", rank_on(lab, lab.nodes[1])]).returncode == 0
    process.communicate(timeout=60)
    deadline = time.monotonic() + 10
    while not reports(lab) and time.monotonic() < deadline:
        time.sleep(0.1)
    report = report_of(lab)
    (event,) = [e for e in report["events"] if e["state"] == "stalled"]
    assert (event["rank"], event["node"]) == (1, "node2")
    assert event["time"] - stopped < 10
    assert "stopped (state T)" in event["detail"]["en"]
    assert "the others at all_reduce" in event["detail"]["en"]
    assert report["gate"]["leave_out"] == ["node2"]
    assert [m for m in report["measurements"] if m["status"] == "ok"], "what was measured before is kept"
