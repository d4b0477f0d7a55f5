"""HCCL over two ranks, on stand-ins of libascendcl and libhccl that misbehave on demand (tests/cpp/fake_hccl.cpp)."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from tests.mpi.two_ranks import TOOL, Lab

pytestmark = pytest.mark.mpi

MPIRUN = str(Path(sysconfig.get_path("scripts")) / "mpirun")


def toolkit(lab: Lab, name: str, version: str, libraries: Path) -> None:
    home = lab.folder / name
    told = home / "share" / "info" / "hccl" / "version.info"
    told.parent.mkdir(parents=True)
    told.write_text(f"Version={version}\n")
    (home / "lib64").symlink_to(libraries)


@pytest.fixture
def lab(stand_ins: Path, tmp_path: Path) -> Lab:
    lab = Lab("hccl", tmp_path, {"ASCEND_HOME_PATH": str(tmp_path / "cann"), "CWAI_FAKE_NPUS": "2"})
    toolkit(lab, "cann", "8.5.1", stand_ins / "cann" / "lib64")
    return lab


def test_a_group_that_is_well_passes_and_says_that_it_is_a_stand_in(lab: Lab) -> None:
    code, report = lab.sweep("-n", "25", "--dtype", "float32,bfloat16,float64", "--placement", "both")
    assert code == 0, report["verdicts"]
    found = [m for m in lab.times(report) if m["status"] == "ok"]
    assert len(found) == 2 * 2 * 2 * 3, "ranks, types, placements, sizes"
    assert {m["correct"] for m in found} == {True}
    assert {m["parameters"]["library"] for m in found} == {"HCCL version 8.5.1 (stand-in)"}
    assert {m["stats"]["count"] for m in found} == {25}
    assert min(m["parameters"]["pipelined"] for m in found) > 0
    skipped = [m for m in lab.times(report) if m["status"] == "skip"]
    assert {m["parameters"]["dtype"] for m in skipped} == {"float64"}
    kinds = {m["metric"].rpartition(".")[2] for m in report["measurements"]}
    assert kinds == {"time", "device", "arrival"}


def test_one_process_may_drive_all_cards(lab: Lab) -> None:
    done = lab.run(*lab.words, "-n", "5")
    assert done.returncode == 0, done.stderr
    assert {m["rank"] for m in lab.times(lab.report())} == {0, 1}


def test_where_there_are_npus_the_library_need_not_be_named(lab: Lab) -> None:
    done = lab.run(*TOOL, "collective", "--operations", "all_reduce", "-b", "64", "-e", "64", "-n", "5", "-np", "2")
    assert done.returncode == 0, done.stderr
    assert {m["metric"].partition(".")[0] for m in lab.report()["measurements"]} == {"hccl", "mpi"}


def test_wrong_data_is_told_with_the_rank_and_the_place(lab: Lab) -> None:
    code, report = lab.sweep("-n", "5", CWAI_FAKE_HCCL="wrong=1@5")
    assert code == 1
    bad = [m for m in lab.times(report) if m["correct"] is False]
    assert {m["rank"] for m in bad} == {1}
    assert {m["parameters"]["first_bad_index"] for m in bad} == {5}
    told = lab.verdict(report, "FAIL")["detail"]["en"]
    assert "first_bad_index 5, card NPU 1), all ranks are on one node: no NIC is needed" in told


def test_an_operation_that_never_ends_is_left_and_what_was_measured_stands(lab: Lab) -> None:
    code, report = lab.sweep("-n", "20", "--item-timeout", "14s", CWAI_FAKE_HCCL="hang=1@100")
    assert code == 3
    assert {m["parameters"]["bytes"] for m in lab.times(report) if m["status"] == "ok"} == {64}
    left = [m for m in lab.times(report) if m["status"] == "timeout"]
    assert {(m["rank"], m["parameters"]["bytes"]) for m in left} == {(0, 512), (1, 512)}
    assert report["status"] == "complete", "all ranks came to the end of the run"


def test_an_error_of_the_library_is_told_in_its_words(lab: Lab) -> None:
    """The other rank hears of nothing, and would wait for it to the deadline."""
    code, report = lab.sweep("-n", "20", CWAI_FAKE_HCCL="error=1@30")
    assert code == 1, report["verdicts"]
    assert "all_reduce failed: error cqe status" in lab.verdict(report, "UNKNOWN")["detail"]["en"]
    assert [e["rank"] for e in report["events"] if e["state"] == "stalled"] == [1]


def test_ranks_with_different_toolkits_do_not_start(lab: Lab, stand_ins: Path) -> None:
    toolkit(lab, "0", "8.5.1", stand_ins / "cann" / "lib64")
    toolkit(lab, "1", "8.3.0", stand_ins / "cann" / "lib64")
    home = f"ASCEND_HOME_PATH={lab.folder}/{'$'}OMPI_COMM_WORLD_RANK"
    program = f'{home} exec {" ".join(lab.words)} "$@"'
    done = lab.run(MPIRUN, "-np", "2", "--map-by", ":OVERSUBSCRIBE", "sh", "-c", program, "sh")
    assert done.returncode == 3, done.stderr
    told = lab.verdict(lab.report(), "UNKNOWN")["detail"]["en"]
    assert "HCCL version 8.5.1: ranks 0" in told
    assert "HCCL version 8.3.0: ranks 1" in told
    assert lab.times(lab.report()) == []


def test_a_machine_without_npus_says_what_is_missing(lab: Lab) -> None:
    done = lab.run(*lab.words, "-np", "2", CWAI_FAKE_NPUS="0")
    assert done.returncode != 0
    assert "has no Ascend NPU" in done.stdout + done.stderr
