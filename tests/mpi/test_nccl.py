"""NCCL over two ranks, on stand-ins of libcuda and libnccl that misbehave on demand (tests/cpp/fake_nccl.cpp)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.mpi

MPIRUN = str(Path(sysconfig.get_path("scripts")) / "mpirun")
AS_ROOT = dict.fromkeys(
    (
        "OMPI_ALLOW_RUN_AS_ROOT",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
        "PRTE_ALLOW_RUN_AS_ROOT",
        "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM",
    ),
    "1",
)
TOOL = [sys.executable, "-m", "cwai_bench"]
SWEEP = ["collective", "--library", "nccl", "--operations", "all_reduce", "-b", "64", "-e", "4K", "-f", "8"]


class Lab:
    """Two ranks on a node of two GPUs. ``demanded`` goes to the stand-ins, as environment variables."""

    def __init__(self, libraries: Path, folder: Path) -> None:
        self.libraries, self.folder = libraries, folder
        self.store = folder / "store"

    def run(self, *command: str, **demanded: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            **AS_ROOT,
            "LD_LIBRARY_PATH": str(self.libraries),
            "CWAI_FAKE_GPUS": "2",
            "CWAI_BENCH_SPOOL": str(self.folder / "spool"),
            "LANG": "C.UTF-8",
            **demanded,
        }
        return subprocess.run(
            [*command, "--store", str(self.store)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def sweep(self, *more: str, **demanded: str) -> tuple[int, dict[str, Any]]:
        done = self.run(*TOOL, *SWEEP, "-np", "2", *more, **demanded)
        assert self.store.exists(), done.stderr
        return done.returncode, self.report()

    def report(self) -> dict[str, Any]:
        (folder,) = (p for p in self.store.iterdir() if not p.name.startswith("."))
        report: dict[str, Any] = json.loads((folder / "report.json").read_text())
        return report


@pytest.fixture
def lab(stand_ins: Path, tmp_path: Path) -> Lab:
    return Lab(stand_ins, tmp_path)


def verdict(report: dict[str, Any], status: str) -> dict[str, Any]:
    (found,) = (v for v in report["verdicts"] if v["check"] == "nccl.all_reduce" and v["status"] == status)
    return dict(found)


def times(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [m for m in report["measurements"] if m["metric"] == "nccl.all_reduce.time"]


def test_a_group_that_is_well_passes_and_says_that_it_is_a_stand_in(lab: Lab) -> None:
    code, report = lab.sweep("-n", "25", "--graph", "--dtype", "float32,bfloat16", "--placement", "both")
    assert code == 0, report["verdicts"]
    found = times(report)
    assert len(found) == 2 * 2 * 2 * 3, "ranks, types, placements, sizes"
    assert {m["correct"] for m in found} == {True}
    assert {m["parameters"]["library"].endswith("(stand-in)") for m in found} == {True}
    assert {m["stats"]["count"] for m in found} == {25}
    assert min(m["parameters"]["pipelined"] for m in found) > 0
    assert min(m["parameters"]["graphed"] for m in found) > 0
    kinds = {m["metric"].rpartition(".")[2] for m in report["measurements"]}
    assert kinds == {"time", "device", "arrival"}
    assert verdict(report, "PASS")["observed"]


def test_one_process_may_drive_all_cards(lab: Lab) -> None:
    done = lab.run(*TOOL, *SWEEP, "-n", "5")
    assert done.returncode == 0, done.stderr
    assert {m["rank"] for m in times(lab.report())} == {0, 1}


def test_wrong_data_is_told_with_the_rank_and_the_place(lab: Lab) -> None:
    code, report = lab.sweep("-n", "5", CWAI_FAKE_NCCL="wrong=1@5")
    assert code == 1
    bad = [m for m in times(report) if m["correct"] is False]
    assert {m["rank"] for m in bad} == {1}
    assert {m["parameters"]["first_bad_index"] for m in bad} == {5}
    assert "rank 1" in verdict(report, "FAIL")["detail"]["en"]
    told = verdict(report, "FAIL")["detail"]
    assert "first_bad_index 5, card 0000:" in told["en"]
    assert told["en"].endswith("NIC mlx5_0:1/IB, by the library's log"), "the stand-in logs a way over it"
    assert told["zh"].endswith("网卡 mlx5_0:1/IB（据通信库日志）")


def test_a_run_of_collectives_reads_what_tells_cards_links_and_nics(lab: Lab) -> None:
    _, report = lab.sweep("-n", "5")
    (journal,) = lab.store.glob("*/journal/*.jsonl")
    read = {name for line in journal.read_text().splitlines() for name in re.findall(r'"(call:[a-z_]+)":', line)}
    assert {"call:pci", "call:rdma", "call:container"} <= read


def test_a_rank_that_is_late_is_named_and_not_its_victim(lab: Lab) -> None:
    """It comes late to the barrier before each operation: no time of an operation shows it."""
    code, report = lab.sweep("-n", "60", "--rehearse", "late:1:30ms")
    assert code in (0, 1)
    late = [v for v in report["verdicts"] if v["subject"]["id"].endswith("/rank1") and v["status"] in ("FAIL", "WARN")]
    assert late, report["verdicts"]
    assert "comes last" in late[0]["detail"]["en"]
    assert not [v for v in report["verdicts"] if v["subject"]["id"].endswith("/rank0")]
    assert max(m["stats"]["p50"] for m in times(report)) < 0.03
    assert {m["parameters"]["rehearsed"] for m in times(report)} == {"rank 1 late by 30000 us"}


def test_an_operation_that_never_ends_is_left_and_what_was_measured_stands(lab: Lab) -> None:
    code, report = lab.sweep("-n", "20", "--item-timeout", "14s", CWAI_FAKE_NCCL="hang=1@100")
    assert code == 3
    done = [m for m in times(report) if m["status"] == "ok"]
    assert {m["parameters"]["bytes"] for m in done} == {64}, "the first size came to its end"
    left = [m for m in times(report) if m["status"] == "timeout"]
    assert {(m["rank"], m["parameters"]["bytes"]) for m in left} == {(0, 512), (1, 512)}
    assert verdict(report, "UNKNOWN")["reason_code"] == "timeout"
    assert report["status"] == "complete", "all ranks came to the end of the run"


def test_a_rank_that_crashes_leaves_a_report_that_says_so(lab: Lab) -> None:
    code, report = lab.sweep("-n", "20", CWAI_FAKE_NCCL="crash=1@100")
    assert code != 0
    died = [e for e in report["events"] if e["state"] == "died"]
    assert [e["rank"] for e in died] == [1]
    assert {m["parameters"]["bytes"] for m in times(report) if m["status"] == "ok"} >= {64}


def test_an_error_of_the_library_is_told_in_its_words(lab: Lab) -> None:
    """The other rank hears of nothing, and would wait for it to the deadline."""
    code, report = lab.sweep("-n", "20", CWAI_FAKE_NCCL="error=1@30")
    assert code == 1, report["verdicts"]
    assert [e["rank"] for e in report["events"] if e["state"] == "stalled"] == [1]
    assert "all_reduce failed: remote process exited" in verdict(report, "UNKNOWN")["detail"]["en"]


def test_ranks_with_different_libraries_do_not_start(lab: Lab) -> None:
    program = f'CWAI_FAKE_NCCL_VERSION=2{"$"}((OMPI_COMM_WORLD_RANK + 20))03 exec {" ".join([*TOOL, *SWEEP])} "$@"'
    done = lab.run(MPIRUN, "-np", "2", "--map-by", ":OVERSUBSCRIBE", "sh", "-c", program, "sh")
    assert done.returncode == 3, done.stderr
    told = verdict(lab.report(), "UNKNOWN")["detail"]["en"]
    assert "2.20.3" in told
    assert "2.21.3" in told
    assert times(lab.report()) == []


def test_an_old_library_does_what_it_can(lab: Lab) -> None:
    older = lab.folder / "old"
    older.mkdir()
    (older / "libcuda.so.1").symlink_to(lab.libraries / "libcuda.so.1")
    (older / "libnccl.so.2").symlink_to(lab.libraries / "old" / "libnccl.so.2")
    lab.libraries = older
    code, report = lab.sweep("-n", "5", "--reduction", "sum,avg", "--dtype", "float32,float8_e4m3")
    assert code == 0, report["verdicts"]
    assert {
        (m["parameters"]["dtype"], m["parameters"].get("reduction", "sum"))
        for m in times(report)
        if m["samples"] or m["stats"]
    } == {("float32", "sum")}
    skipped = [m for m in times(report) if m["status"] == "skip"]
    assert {m["parameters"]["dtype"] for m in skipped} == {"float32", "float8_e4m3"}
    assert all("2.8.4" in m["reason"]["en"] for m in skipped)
