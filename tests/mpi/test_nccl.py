"""NCCL over two ranks, on stand-ins of libcuda and libnccl that misbehave on demand (tests/cpp/fake_nccl.cpp)."""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path

import pytest

from tests.mpi.two_ranks import Lab

pytestmark = pytest.mark.mpi

MPIRUN = str(Path(sysconfig.get_path("scripts")) / "mpirun")


@pytest.fixture
def lab(stand_ins: Path, tmp_path: Path) -> Lab:
    return Lab("nccl", tmp_path, {"LD_LIBRARY_PATH": str(stand_ins), "CWAI_FAKE_GPUS": "2"})


def test_a_group_that_is_well_passes_and_says_that_it_is_a_stand_in(lab: Lab) -> None:
    code, report = lab.sweep("-n", "25", "--graph", "--dtype", "float32,bfloat16", "--placement", "both")
    assert code == 0, report["verdicts"]
    found = lab.times(report)
    assert len(found) == 2 * 2 * 2 * 3, "ranks, types, placements, sizes"
    assert {m["correct"] for m in found} == {True}
    assert {m["parameters"]["library"].endswith("(stand-in)") for m in found} == {True}
    assert {m["stats"]["count"] for m in found} == {25}
    assert min(m["parameters"]["pipelined"] for m in found) > 0
    assert min(m["parameters"]["graphed"] for m in found) > 0
    kinds = {m["metric"].rpartition(".")[2] for m in report["measurements"]}
    assert kinds == {"time", "device", "arrival"}
    assert lab.verdict(report, "PASS")["observed"]
    (journal,) = lab.store.glob("*/journal/*.jsonl")
    read = set(re.findall(r'"(call:[a-z_]+)":', journal.read_text()))
    assert {"call:pci", "call:rdma", "call:container"} <= read, "cards, links and NICs of the node"


def test_one_process_may_drive_all_cards(lab: Lab) -> None:
    done = lab.run(*lab.words, "-n", "5")
    assert done.returncode == 0, done.stderr
    assert {m["rank"] for m in lab.times(lab.report())} == {0, 1}


def test_wrong_data_is_told_with_the_rank_and_the_place(lab: Lab) -> None:
    code, report = lab.sweep("-n", "5", CWAI_FAKE_NCCL="wrong=1@5")
    assert code == 1
    bad = [m for m in lab.times(report) if m["correct"] is False]
    assert {m["rank"] for m in bad} == {1}
    assert {m["parameters"]["first_bad_index"] for m in bad} == {5}
    assert "rank 1" in lab.verdict(report, "FAIL")["detail"]["en"]
    told = lab.verdict(report, "FAIL")["detail"]
    assert "first_bad_index 5, card 0000:" in told["en"]
    assert told["en"].endswith("NIC mlx5_0:1/IB, by the library's log"), "the stand-in logs a way over it"
    assert told["zh"].endswith("网卡 mlx5_0:1/IB（据通信库日志）")


def test_a_rank_that_is_late_is_named_and_not_its_victim(lab: Lab) -> None:
    """It comes late to the barrier before each operation: no time of an operation shows it."""
    code, report = lab.sweep("-n", "60", "--rehearse", "late:1:30ms")
    assert code in (0, 1)
    late = [v for v in report["verdicts"] if v["subject"]["id"].endswith("/rank1") and v["status"] in ("FAIL", "WARN")]
    assert late, report["verdicts"]
    assert "comes last" in late[0]["detail"]["en"]
    assert not [v for v in report["verdicts"] if v["subject"]["id"].endswith("/rank0")]
    assert max(m["stats"]["p50"] for m in lab.times(report)) < 0.03
    assert {m["parameters"]["rehearsed"] for m in lab.times(report)} == {"rank 1 late by 30000 us"}


def test_an_operation_that_never_ends_is_left_and_what_was_measured_stands(lab: Lab) -> None:
    code, report = lab.sweep("-n", "20", "--item-timeout", "14s", CWAI_FAKE_NCCL="hang=1@100")
    assert code == 3
    done = [m for m in lab.times(report) if m["status"] == "ok"]
    assert {m["parameters"]["bytes"] for m in done} == {64}, "the first size came to its end"
    left = [m for m in lab.times(report) if m["status"] == "timeout"]
    assert {(m["rank"], m["parameters"]["bytes"]) for m in left} == {(0, 512), (1, 512)}
    assert lab.verdict(report, "UNKNOWN")["reason_code"] == "timeout"
    assert report["status"] == "complete", "all ranks came to the end of the run"


def test_a_rank_that_crashes_leaves_a_report_that_says_so(lab: Lab) -> None:
    code, report = lab.sweep("-n", "20", CWAI_FAKE_NCCL="crash=1@100")
    assert code != 0
    died = [e for e in report["events"] if e["state"] == "died"]
    assert [e["rank"] for e in died] == [1]
    assert {m["parameters"]["bytes"] for m in lab.times(report) if m["status"] == "ok"} >= {64}


def test_an_error_of_the_library_is_told_in_its_words(lab: Lab) -> None:
    """The other rank hears of nothing, and would wait for it to the deadline."""
    code, report = lab.sweep("-n", "20", CWAI_FAKE_NCCL="error=1@30")
    assert code == 1, report["verdicts"]
    assert [e["rank"] for e in report["events"] if e["state"] == "stalled"] == [1]
    assert "all_reduce failed: remote process exited" in lab.verdict(report, "UNKNOWN")["detail"]["en"]


def test_ranks_with_different_libraries_do_not_start(lab: Lab) -> None:
    program = f'CWAI_FAKE_NCCL_VERSION=2{"$"}((OMPI_COMM_WORLD_RANK + 20))03 exec {" ".join(lab.words)} "$@"'
    done = lab.run(MPIRUN, "-np", "2", "--map-by", ":OVERSUBSCRIBE", "sh", "-c", program, "sh")
    assert done.returncode == 3, done.stderr
    told = lab.verdict(lab.report(), "UNKNOWN")["detail"]["en"]
    assert "2.20.3" in told
    assert "2.21.3" in told
    assert lab.times(lab.report()) == []


def test_an_old_library_does_what_it_can(lab: Lab, stand_ins: Path) -> None:
    older = lab.folder / "old"
    older.mkdir()
    (older / "libcuda.so.1").symlink_to(stand_ins / "libcuda.so.1")
    (older / "libnccl.so.2").symlink_to(stand_ins / "old" / "libnccl.so.2")
    lab.machine["LD_LIBRARY_PATH"] = str(older)
    code, report = lab.sweep("-n", "5", "--reduction", "sum,avg", "--dtype", "float32,float8_e4m3")
    assert code == 0, report["verdicts"]
    assert {
        (m["parameters"]["dtype"], m["parameters"].get("reduction", "sum"))
        for m in lab.times(report)
        if m["samples"] or m["stats"]
    } == {("float32", "sum")}
    skipped = [m for m in lab.times(report) if m["status"] == "skip"]
    assert {m["parameters"]["dtype"] for m in skipped} == {"float32", "float8_e4m3"}
    assert all("2.8.4" in m["reason"]["en"] for m in skipped)
