"""``cwai-bench multipath`` over three links of known rate between two nodes, of which one is cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.nodes import VENV, Lab
from tests.lab.paths import Paths

pytestmark = [pytest.mark.lab("sshd", "tc"), pytest.mark.mpi]

TOOL = str(VENV / "bin" / "cwai-bench")
LINKS = 3
LIMIT = 180.0


@pytest.fixture
def links(two_nodes: Lab) -> Iterator[Paths]:
    with Paths([80.0] * LINKS, [node.pid for node in two_nodes.nodes]) as paths:
        yield paths


def run(lab: Lab, *options: str) -> tuple[int, dict[str, Any], str]:
    """MPI itself meets by another network, so that it outlives the links."""
    ends = [",".join(f"node{node}/{name}{i}" for i in range(LINKS)) for node, name in ((1, "a"), (2, "b"))]
    command = [*lab.mpirun(), "--mca", "btl_tcp_if_include", "eth0", TOOL, "multipath", "--policy", "pull"]
    command += ["--from", ends[0], "--to", ends[1], "--repeat", "1", "--duration", "1s", *options]
    done = lab.run(lab.nodes[0], [*command, "--store", str(lab.folder / "store")], timeout=LIMIT)
    (saved,) = (lab.folder / "store").glob("[0-9]*/report.json")
    assert (saved.parent / "report.html").read_text().startswith("<!")
    journals = b"".join(path.read_bytes() for path in (saved.parent / "journal").glob("*.jsonl"))
    assert b'"type":"transfer"' in journals, done.stdout + done.stderr
    return done.returncode, json.loads(saved.read_text()), done.stdout + done.stderr


def verdicts(report: dict[str, Any], check: str) -> dict[str, dict[str, Any]]:
    return {v["subject"]["id"]: v for v in report["verdicts"] if v["check"] == check}


@pytest.mark.usefixtures("links")
def test_a_rehearsed_cut_is_survived_and_named(two_nodes: Lab) -> None:
    code, report, said = run(two_nodes, "--scenario", "cut")
    assert code == 0, said
    assert verdicts(report, "multipath.cut")["node1→node2"]["status"] in ("PASS", "WARN"), said
    assert all(m["correct"] for m in report["measurements"])
    (cut,) = report["transfers"]
    hit = cut["planted"][0]["path"]
    assert any(change["path"] == hit and change["state"] in ("suspect", "failed") for change in cut["changes"])
    assert sum(sum(path["timeline"]) for path in cut["paths"]) == cut["bytes"]
    named = "→".join((cut["paths"][hit]["source"], cut["paths"][hit]["target"]))
    (fault,) = report["path_faults"]
    assert (fault["paths"], fault["rehearsed"]) == ([named], True)
    # No other link joins these ends to anybody, so that hosts cannot tell one end from the other.
    assert fault["finding"]["kind"] == "ambiguous"
    assert fault["finding"]["ends"] == named.split("→")
    assert {"nic"} <= {candidate["kind"] for candidate in fault["finding"]["candidates"]}


def test_a_link_that_swallows_all_is_named(two_nodes: Lab, links: Paths) -> None:
    links.swallow(1)
    code, report, said = run(two_nodes)
    assert code == 1, said
    found = verdicts(report, "multipath.as_is")
    assert found["node1/a1→node2/b1"]["status"] == "FAIL"
    assert found["node1→node2"]["status"] in ("PASS", "WARN")
    assert {id for id, v in found.items() if v["status"] == "FAIL"} == {"node1/a1→node2/b1"}
    fault = report["path_faults"][0]
    assert fault["paths"] == ["node1/a1→node2/b1"]
    assert set(fault["finding"]["ends"]) == {"node1/a1", "node2/b1"}
    assert "rehearsed" not in fault
