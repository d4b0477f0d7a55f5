"""The main job over two nodes, by ssh, as on a real cluster: started in each of the two ways, and with things wrong."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.lab.nodes import ROOT, VENV, Lab, Node

pytestmark = [pytest.mark.lab("sshd"), pytest.mark.mpi]

TOOL = str(VENV / "bin" / "cwai-bench")
OTHER_SYSTEM = 'NAME="Other"\nPRETTY_NAME="Other Linux 1"\nID=other\nVERSION_ID="1"\n'
RUN_LIMIT = 180.0


def report_of(lab: Lab) -> dict[str, Any]:
    """The one report in the lab's store."""
    (saved,) = (lab.folder / "store").glob("[0-9]*/report.json")
    assert (saved.parent / "report.html").read_text().startswith("<!")
    report: dict[str, Any] = json.loads(saved.read_text())
    return report


def by_mpirun(lab: Lab, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return lab.run(lab.nodes[0], [*lab.mpirun(), TOOL, *command, "--store", lab.folder / "store"], timeout=RUN_LIMIT)


def by_hosts(lab: Lab, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return lab.run(
        lab.nodes[0], [TOOL, *command, "--hosts", "node[1-2]", "--store", lab.folder / "store"], timeout=RUN_LIMIT
    )


BOTH_WAYS = pytest.mark.parametrize("start", [by_mpirun, by_hosts])


def assert_left_alone(lab: Lab) -> None:
    """No process of ours stays on any node; a keeper may take a moment to end."""
    deadline = time.monotonic() + 10
    while any(lab.processes(node) for node in lab.nodes) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [lab.processes(node) for node in lab.nodes] == [[], []]


def verdicts(report: dict[str, Any], check: str) -> dict[str, dict[str, Any]]:
    return {node: v for v in report["verdicts"] if v["check"] == check for node in v["nodes"]}


@BOTH_WAYS
def test_a_run_over_two_nodes_is_complete(two_nodes: Lab, start: Any) -> None:
    done = start(two_nodes, ["run"])
    assert done.returncode in (0, 1, 3), done.stderr
    report = report_of(two_nodes)
    assert (report["status"], report["gate"]["exit_code"]) == ("complete", done.returncode), done.stderr
    nodes = [(n["name"], n["ranks"], n["present"], n["complete"]) for n in report["nodes"]]
    assert nodes == [("node1", [0], True, True), ("node2", [1], True, True)]
    assert set(verdicts(report, "memory.installed")) == {"node1", "node2"}

    measured = report["measurements"]
    assert not [m for m in measured if m["correct"] is False], "wrong data"
    bandwidth = [m for m in measured if m["metric"].startswith("tcp.bandwidth") and m["status"] == "ok"]
    assert {m["subject"]["id"] for m in bandwidth} >= {"node1→node2", "node2→node1"}
    assert all(m["stats"]["min"] > 0 and m["correct"] for m in bandwidth)
    collective = [m for m in measured if m["metric"].startswith("mpi.") and m["metric"].endswith(".time")]
    assert {m["parameters"]["operation"] for m in collective} >= {"all_reduce", "all_gather", "alltoall", "broadcast"}
    assert all(m["status"] == "ok" and m["correct"] for m in collective)
    assert {m["rank"] for m in collective} == {0, 1}
    assert_left_alone(two_nodes)


@BOTH_WAYS
def test_another_version_on_a_node_is_refused_by_name(tmp_path: Path, start: Any) -> None:
    source = ROOT / "cwai_bench" / "__init__.py"
    other, changes = re.subn(r'^__version__ = ".*"$', '__version__ = "0.0.0+other"', source.read_text(), flags=re.M)
    assert changes == 1
    with Lab(tmp_path / "lab", differs={"node2": {source: other}}) as lab:
        done = start(lab, ["check"])
        assert done.returncode == 2
        assert "node2 has cwai-bench 0.0.0+other" in done.stderr
        assert "install the same version" in done.stderr
        assert not list((lab.folder / "store").glob("[0-9]*/report.json"))
        assert_left_alone(lab)


def test_a_node_that_differs_from_the_baseline_fails(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab", differs={"node2": {Path("/etc/os-release"): OTHER_SYSTEM}}) as lab:
        done = by_hosts(lab, ["check", "--baseline", "node1", "--items", "same.*"])
        assert done.returncode == 1, done.stderr
        report = report_of(lab)
        found = verdicts(report, "same.os")
        assert {node: v["status"] for node, v in found.items()} == {"node1": "PASS", "node2": "FAIL"}
        assert found["node2"]["observed"] == "Other Linux 1"
        assert report["gate"]["leave_out"] == ["node2"]
        others = [v for v in report["verdicts"] if v["check"] != "same.os"]
        assert len(others) > 10
        assert "FAIL" not in {v["status"] for v in others}


def test_without_a_baseline_nodes_that_differ_are_listed_not_judged(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab", differs={"node2": {Path("/etc/os-release"): OTHER_SYSTEM}}) as lab:
        done = by_hosts(lab, ["check", "--items", "same.os,host.uptime"])
        assert done.returncode == 0, done.stderr
        (listed,) = (v for v in report_of(lab)["verdicts"] if v["check"] == "same.os")
        assert listed["status"] == "NA"
        groups = {group["value"]: group["nodes"] for group in listed["groups"]}
        assert groups["Other Linux 1"] == ["node2"]
        assert sorted(node for nodes in groups.values() for node in nodes) == ["node1", "node2"]


def long_run(lab: Lab) -> subprocess.Popen[str]:
    """A sweep that would take minutes; returns once both nodes have measured something."""
    sweep = ["collective", "--operations", "all_reduce", "-b", "8", "-e", "16M", "-n", "20000"]
    process = lab.start(lab.nodes[0], [*lab.mpirun(), TOOL, *sweep, "--store", lab.folder / "store"])
    deadline = time.monotonic() + 60
    while not all('"measurement"' in spooled(lab, node) for node in lab.nodes):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no measurement within 60 s"
        time.sleep(0.2)
    return process


def spooled(lab: Lab, node: Node) -> str:
    return lab.run(node, ["sh", "-c", "cat /var/tmp/cwai-bench-*/*/*.jsonl 2>/dev/null"]).stdout


def test_a_second_run_on_a_busy_node_is_refused_naming_the_first(two_nodes: Lab) -> None:
    first = long_run(two_nodes)
    run_id = re.search(r'"run_id":"([^"]+)"', spooled(two_nodes, two_nodes.nodes[1]))
    assert run_id is not None
    second = by_hosts(two_nodes, ["check"])
    assert second.returncode == 3
    assert run_id[1] in second.stderr
    assert re.search(r"node[12] is busy", second.stderr)
    assert first.poll() is None, "the first run was disturbed"
    stopped = two_nodes.run(two_nodes.nodes[0], [TOOL, "history", "stop", run_id[1], "--store", "/nowhere"])
    assert stopped.returncode == 0, stopped.stderr
    first.communicate(timeout=60)


def test_a_node_that_goes_down_is_named_and_the_report_is_still_written(two_nodes: Lab) -> None:
    process = long_run(two_nodes)
    two_nodes.lose(two_nodes.nodes[1])
    process.communicate(timeout=60)  # its exit code is Open MPI's, which is 0 after the loss of a node
    deadline = time.monotonic() + 10  # mpirun does not wait for the keeper, which waits 3 s for the lost one
    while not list((two_nodes.folder / "store").glob("[0-9]*/report.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    report = report_of(two_nodes)
    assert report["status"] != "complete"
    assert {n["name"]: n["complete"] for n in report["nodes"]}["node2"] is False
    because = " ".join(reason["en"] for reason in report["gate"]["because"])
    assert "node2" in because
    assert report["gate"]["exit_code"] == 3
    assert [m for m in report["measurements"] if m["node"] == "node1" and m["status"] == "ok"]


@BOTH_WAYS
def test_scripts_reach_the_nodes_with_the_run(two_nodes: Lab, start: Any) -> None:
    """The criteria file and its scripts lie in the first node's own /tmp; the other node has no such files."""
    lab = two_nodes
    table = '[script]\nall.file = "who.sh"\ntwo = { file = "who.sh", args = ["4"], nodes = "node2", exit.warn = [4] }\n'
    files = {"who.sh": '#!/bin/sh\necho "on $(hostname)"\nexit ${1:-0}\n', "my.toml": table}
    for name, text in files.items():
        lab.run(lab.nodes[0], ["sh", "-c", 'printf %s "$1" > "/tmp/$0"', name, text])
    done = start(lab, ["check", "--items", "script.*", "--criteria", "/tmp/my.toml"])
    assert done.returncode == 0, done.stderr
    report = report_of(lab)
    everywhere = {node: (v["status"], v["observed"]) for node, v in verdicts(report, "script.all").items()}
    assert everywhere == {"node1": ("PASS", "on node1"), "node2": ("PASS", "on node2")}
    chosen = {node: (v["status"], v.get("reason_code", "")) for node, v in verdicts(report, "script.two").items()}
    assert chosen == {"node1": ("SKIP", "not_selected"), "node2": ("WARN", "")}
    assert_left_alone(lab)
