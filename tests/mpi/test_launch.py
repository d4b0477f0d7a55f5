"""Ranks die, stand still, are interrupted, and the report is still written: with real mpirun, real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mpi.conftest import AS_ROOT

pytestmark = pytest.mark.mpi

MPIRUN = str(Path(sysconfig.get_path("scripts")) / "mpirun")
TOOL = [sys.executable, "-m", "cwai_bench"]
LONG_SWEEP = ["collective", "--operations", "all_reduce,all_gather", "-b", "8", "-e", "16M", "-n", "20000"]


class Lab:
    """A store and a spool of its own, and processes that are surely ended."""

    def __init__(self, folder: Path) -> None:
        self.store, self.spool = folder / "store", folder / "spool"
        self.env = {**os.environ, **AS_ROOT, "CWAI_BENCH_SPOOL": str(self.spool), "LANG": "C.UTF-8"}
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.started.append(process)
        return process

    def run(self, *command: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        process = self.start(*command)
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        until(lambda: "@cwai-bench-node" not in Path("/proc/net/unix").read_text(), 15, "the keeper leaves the node")

    def spooled(self) -> str:
        return "".join(p.read_text(errors="replace") for p in self.spool.glob("*/*.jsonl"))

    def report(self) -> dict[str, Any]:
        folders = [p for p in self.store.iterdir() if not p.name.startswith(".")]
        assert len(folders) == 1
        report: dict[str, Any] = json.loads((folders[0] / "report.json").read_text())
        assert (folders[0] / "report.html").read_text().startswith("<!")
        return report


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.close()


def until(what: Callable[[], bool], seconds: float, why: str) -> float:
    """Wait for it; return how long it took."""
    start = time.monotonic()
    while not what():
        if time.monotonic() - start > seconds:
            raise AssertionError(f"not within {seconds} s: {why}")
        time.sleep(0.02)
    return time.monotonic() - start


def pid_of_rank(rank: int, store: Path) -> int:
    """The process that is ``rank`` of the run that writes into ``store``."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environ = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        is_rank = f"OMPI_COMM_WORLD_RANK={rank}".encode() in environ
        if is_rank and str(store).encode() in command and b"cwai_bench" in command and parent != 1:
            return int(folder.name)
    raise AssertionError(f"no process is rank {rank}")


def published(lab: Lab) -> bool:
    return any(lab.store.glob("[0-9]*/report.json"))


def in_the_middle(lab: Lab) -> None:
    """Until a few sizes of the first operation are measured, and more are to come."""
    until(lambda: lab.spooled().count('"mpi.all_reduce.time"') >= 6, 60, "a few sizes measured")


def test_two_ranks_measure_and_agree(lab: Lab) -> None:
    done = lab.run(
        MPIRUN, "-np", "2", *TOOL, "collective", "--operations", "all_reduce", "-e", "4K", "--store", str(lab.store)
    )
    assert done.returncode == 0, done.stderr
    report = lab.report()
    assert report["status"] == "complete"
    assert report["gate"]["exit_code"] == 0
    assert {m["rank"] for m in report["measurements"]} == {0, 1}
    assert all(m["correct"] for m in report["measurements"] if m["metric"].endswith(".time"))
    assert "report.html" in done.stdout
    assert not list(lab.spool.glob("*/*")), "a published run leaves nothing in the spool"


def test_the_command_starts_its_own_ranks(lab: Lab) -> None:
    done = lab.run(
        *TOOL, "collective", "-np", "2", "--operations", "broadcast", "-e", "1K", "--store", str(lab.store), "--json"
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["run_id"] == lab.report()["run_id"]
    assert printed["world_size"] == 2


def test_a_killed_rank_is_named_and_nothing_is_lost(lab: Lab) -> None:
    process = lab.start(MPIRUN, "-np", "2", *TOOL, *LONG_SWEEP, "--store", str(lab.store))
    in_the_middle(lab)
    before = lab.spooled().count('"type":"measurement"')
    os.kill(pid_of_rank(1, lab.store), signal.SIGKILL)
    took = until(lambda: published(lab), 5.0, "a report after a death")
    process.communicate(timeout=30)
    assert process.returncode == 137, "the launcher's own code stands"
    report = lab.report()
    died = [e for e in report["events"] if e["state"] == "died"]
    assert [(e["rank"], e["node"], e["item"]) for e in died] == [(1, os.uname().nodename, "mpi.all_reduce#0")] or died[
        0
    ]["item"].startswith("mpi.all_"), died
    assert [e["rank"] for e in died] == [1]
    assert len(report["measurements"]) >= before
    assert report["status"] == "partial"
    assert report["gate"]["exit_code"] == 1
    assert any("1" in reason["en"] for reason in report["gate"]["because"])
    assert took < 5.0


def test_a_stopped_rank_is_named_within_its_time_limit(lab: Lab) -> None:
    process = lab.start(MPIRUN, "-np", "2", *TOOL, *LONG_SWEEP, "--item-timeout", "8", "--store", str(lab.store))
    in_the_middle(lab)
    os.kill(pid_of_rank(0, lab.store), signal.SIGSTOP)
    until(lambda: published(lab), 8 + 6, "a report after a stop")
    process.communicate(timeout=30)
    assert process.returncode != 0
    report = lab.report()
    stalled = [e for e in report["events"] if e["state"] == "stalled"]
    assert [(e["rank"], e["node"]) for e in stalled] == [(0, os.uname().nodename)]
    assert "stopped" in stalled[0]["detail"]["en"]
    assert report["gate"]["exit_code"] == 1


def test_a_rank_that_stands_still_is_named_long_before_its_time_limit(lab: Lab) -> None:
    process = lab.start(MPIRUN, "-np", "2", *TOOL, *LONG_SWEEP, "--store", str(lab.store))
    in_the_middle(lab)
    before = lab.spooled().count('"type":"measurement"')
    os.kill(pid_of_rank(1, lab.store), signal.SIGSTOP)
    stopped = time.time()
    until(lambda: published(lab), 15, "a report after a stop")
    process.communicate(timeout=30)
    report = lab.report()
    (stalled,) = [e for e in report["events"] if e["state"] == "stalled"]
    assert stalled["rank"] == 1
    assert stalled["time"] - stopped < 10
    assert "the others at all_" in stalled["detail"]["en"]
    assert len(report["measurements"]) >= before
    assert report["gate"]["exit_code"] == 1


def test_our_own_launch_tells_the_verdict_after_a_death(lab: Lab) -> None:
    process = lab.start(*TOOL, *LONG_SWEEP, "-np", "2", "--store", str(lab.store))
    in_the_middle(lab)
    os.kill(pid_of_rank(0, lab.store), signal.SIGKILL)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1, err
    assert "report.html" in out
    assert [e["rank"] for e in lab.report()["events"] if e["state"] == "died"] == [0]


@pytest.mark.parametrize("command", [["check"], ["gate", "--check-only"]])
def test_mpirun_does_not_complain_of_our_verdict(lab: Lab, tmp_path: Path, command: list[str]) -> None:
    criteria = tmp_path / "criteria.toml"
    criteria.write_text('[criteria]\nmemory.total.min = "9999 TiB"\n')
    words = ["-np", "2", "--items", "memory.total", "--criteria", str(criteria), "--store", str(lab.store)]
    done = lab.run(*TOOL, *command, *words, *(["--", "true"] if command[0] == "gate" else []))
    assert done.returncode == 1, done.stderr
    assert "exit code 1" in done.stdout + done.stderr
    assert "non-zero" not in done.stderr
    assert "prterun" not in done.stderr


@pytest.mark.parametrize("to_all", [True, False], ids=["as a terminal does", "to the front alone"])
def test_an_interrupted_run_says_so(lab: Lab, to_all: bool) -> None:
    process = lab.start(*TOOL, *LONG_SWEEP, "-np", "2", "--store", str(lab.store))
    in_the_middle(lab)
    (os.killpg if to_all else os.kill)(process.pid, signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
    report = lab.report()
    assert report["status"] == "terminated"
    assert report["gate"]["exit_code"] == 130, "what the person did, not what mpirun told the ranks"
    assert report["measurements"]


def test_a_busy_node_is_refused_naming_the_first_run(lab: Lab, tmp_path: Path) -> None:
    first = lab.start(*TOOL, *LONG_SWEEP, "-np", "2", "--store", str(lab.store))
    in_the_middle(lab)
    run_id = next(lab.spool.iterdir()).name
    second = lab.run(*TOOL, "check", "--store", str(tmp_path / "other"))
    assert second.returncode == 3
    assert run_id in second.stderr
    assert "Traceback" not in second.stderr
    assert first.poll() is None


def test_collective_alone_is_refused(lab: Lab) -> None:
    done = lab.run(*TOOL, "collective", "--store", str(lab.store))
    assert done.returncode == 2
    assert "-np" in done.stderr


def test_a_gate_that_opens_becomes_the_command(lab: Lab, tmp_path: Path) -> None:
    status = tmp_path / "status.json"
    script = (
        "import os, time; print('rank', os.environ['OMPI_COMM_WORLD_RANK'], flush=True); time.sleep(2); os._exit(7)"
    )
    done = lab.run(
        MPIRUN,
        "-np",
        "2",
        *TOOL,
        *["gate", "--items", "kernel.version,mpi.broadcast", "--allow-unknown", "--store", str(lab.store)],
        *["--status-file", str(status), "--", sys.executable, "-c", script],
    )
    assert done.returncode == 7, done.stderr
    assert sorted(done.stdout.split("\n")) == ["", "rank 0", "rank 1"], "our own words go to stderr"
    assert json.loads(status.read_text())["command_started"] is True
    folder = next(p for p in lab.store.iterdir())
    assert json.loads((folder / "gate.json").read_text())["exit_code"] == 0


def test_a_gate_that_stays_shut_does_not_start_it(lab: Lab, tmp_path: Path) -> None:
    criteria = tmp_path / "criteria.toml"
    criteria.write_text('[criteria]\nmemory.total.min = "9999 TiB"\n')
    started = tmp_path / "started"
    done = lab.run(
        *TOOL,
        *["gate", "--items", "memory.total", "--criteria", str(criteria), "--store", str(lab.store)],
        *["--", "touch", str(started)],
    )
    assert done.returncode == 1, done.stderr
    assert not started.exists()
    assert done.stdout == ""
    folder = next(p for p in lab.store.iterdir())
    assert json.loads((folder / "gate.json").read_text())["command_started"] is False
