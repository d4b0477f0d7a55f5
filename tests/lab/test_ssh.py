"""The server check over ssh, on nodes with an sshd each: no MPI anywhere."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.lab.nodes import VENV, Lab

pytestmark = [pytest.mark.lab("sshd")]

TOOL = str(VENV / "bin" / "cwai-bench")


def command(lab: Lab, nodes: str, *more: str, items: str = "host.*,kernel.*") -> list[str]:
    return [TOOL, "check", "--ssh", nodes, "--items", items, "--store", str(lab.folder / "store"), *more]


def report_of(lab: Lab) -> dict[str, Any]:
    (saved,) = (lab.folder / "store").glob("[0-9]*/report.json")
    report: dict[str, Any] = json.loads(saved.read_text())
    return report


def absent(report: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Reason code and words of each node of which nothing came."""
    return {
        v["node"]: (v["reason_code"], v["detail"]["en"])
        for v in report["verdicts"]
        if v["check"] == "run.nodes" and v["status"] == "UNKNOWN"
    }


def assert_left_alone(lab: Lab) -> None:
    deadline = time.monotonic() + 10
    while any(lab.processes(node) for node in lab.nodes) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [lab.processes(node) for node in lab.nodes] == [[] for _ in lab.nodes]


def test_two_nodes_answer(two_nodes: Lab) -> None:
    done = two_nodes.run(two_nodes.nodes[0], command(two_nodes, "node[1-2]"))
    assert done.returncode in (0, 1, 3), done.stderr
    report = report_of(two_nodes)
    assert [(n["name"], n["ranks"], n["complete"]) for n in report["nodes"]] == [
        ("node1", [0], True),
        ("node2", [1], True),
    ]
    assert_left_alone(two_nodes)
