"""The vendor's hccl_test as a second way: its programs are found, started, read; what they complain of is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from cwai_bench.errors import UsageError
from cwai_bench.model import LeftOut, ProbeSpec
from cwai_bench.probes import Options, World
from cwai_bench.probes.collective import OPERATIONS
from cwai_bench.probes.hccl_test import _plan, words_of

STAND_IN = Path(__file__).with_name("hccl_test_program.py")
ENVIRONMENT = Path(sysconfig.get_path("scripts")).parent


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "program.py").write_text(STAND_IN.read_text())
    for name in ("all_reduce_test", "broadcast_test"):
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {folder}/program.py "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def planned(operation: str, folder: Path, nodes: int = 1, **options: Any) -> list[ProbeSpec | LeftOut]:
    world = World(nodes, tuple(f"node{i}" for i in range(nodes)), nodes > 1)
    return _plan(OPERATIONS[operation], world, Options(**{"library": "hccl-test", "hccl_test": str(folder), **options}))


def run(folder: Path, *more: str, **demanded: str) -> tuple[int, dict[str, Any]]:
    store = folder.parent / "store"
    words = ["collective", "--library", "hccl-test", "--hccl-test", str(folder), "--operations", "all_reduce"]
    words += ["--cards", "2", "-b", "1M", "-e", "4M", "--store", str(store)]
    done = subprocess.run(
        [sys.executable, "-m", "cwai_bench", *words, *more],
        env={
            **os.environ,
            "MPI_HOME": str(ENVIRONMENT),
            "CWAI_BENCH_SPOOL": str(folder.parent / "spool"),
            "LANG": "C.UTF-8",
            **demanded,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert store.exists(), done.stderr
    (report,) = store.glob("[!.]*/report.json")
    return done.returncode, json.loads(report.read_text())


def verdict(report: dict[str, Any]) -> dict[str, Any]:
    (found,) = (v for v in report["verdicts"] if v["check"] == "hccl-test.all_reduce")
    return dict(found)


@pytest.mark.mpi
def test_its_figures_are_those_of_hccl(programs: Path) -> None:
    code, report = run(programs, "-n", "7", "--dtype", "float16", "--reduction", "max")
    assert code == 0, report["verdicts"]
    found = report["measurements"]
    assert [(m["metric"], m["parameters"]["bytes"], m["correct"]) for m in found] == [
        ("hccl.all_reduce.time", 1 << 20, True),
        ("hccl.all_reduce.time", 2 << 20, True),
        ("hccl.all_reduce.time", 4 << 20, True),
    ]
    assert found[0]["parameters"]["pipelined"] == pytest.approx(10.49e-6)
    assert found[0]["parameters"]["library"] == "hccl_test"
    assert verdict(report)["status"] == "PASS"
    assert (programs / "words").read_text() == "-p 2 -b 1048576 -e 4194304 -f 2 -n 7 -w 10 -d fp16 -o max -c 1"


@pytest.mark.mpi
def test_wrong_data_fails_though_it_exits_with_0(programs: Path) -> None:
    (programs / "wrong-1").touch()
    code, report = run(programs)
    assert code == 1
    assert verdict(report)["reason_code"] == "wrong_data"
    assert "of ranks 1" in verdict(report)["detail"]["en"]


@pytest.mark.mpi
def test_a_failure_is_no_figure_though_it_exits_with_0(programs: Path) -> None:
    (programs / "fail").touch()
    code, report = run(programs)
    assert code == 3
    assert verdict(report)["status"] == "UNKNOWN"
    assert "an error in device_init" in verdict(report)["detail"]["en"]


@pytest.mark.mpi
def test_what_hangs_is_ended_and_what_was_measured_stands(programs: Path) -> None:
    (programs / "hang").touch()
    code, report = run(programs, "--item-timeout", "12s")
    assert code == 3
    assert [m["parameters"].get("bytes") for m in report["measurements"]] == [1 << 20, None]
    assert verdict(report)["reason_code"] == "timeout"


def test_a_program_that_is_not_there_is_left_out_with_the_reason(programs: Path) -> None:
    (left,) = planned("alltoall", programs)
    assert isinstance(left, LeftOut)
    assert left.reason_code == "missing_tool"
    assert "alltoall_test" in left.reason.en
    assert "--hccl-test DIR" in left.reason.en
    assert planned("all_reduce", programs, library="hccl") == []


def test_it_is_found_in_the_toolkit(programs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "cann"
    (home / "tools" / "hccl_test").mkdir(parents=True)
    (home / "tools" / "hccl_test" / "bin").symlink_to(programs)
    monkeypatch.setenv("ASCEND_HOME_PATH", str(home))
    (spec,) = planned("all_reduce", Path(), hccl_test="")
    assert isinstance(spec, ProbeSpec)
    assert spec.parameters["program"] == f"{home}/tools/hccl_test/bin/all_reduce_test"


def test_its_options_are_made_of_ours(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HCCL_BUFFSIZE", "2048")
    (spec,) = planned("broadcast", programs, min_bytes=8, max_bytes=64, step_bytes=8, warmup=3, root_rank=1)
    assert isinstance(spec, ProbeSpec)
    words = " ".join(words_of(spec.parameters, 4, "/opt/mpirun"))
    assert "HCCL_BUFFSIZE=2048 " in words
    assert words.endswith(
        f"/opt/mpirun -n 4 {programs}/broadcast_test -p 4 -b 8 -e 64 -i 8 -n 20 -w 3 -d fp32 -r 1 -c 1"
    )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"nodes": 2}, "measures one node"),
        ({"placement": "both"}, "neither --placement"),
        ({"operations": ("all_reduce", "gather")}, "hccl_test does not have gather"),
        ({"reductions": ("avg",)}, "hccl_test does not have avg"),
        ({"hccl_test": "/opt/my programs"}, "blanks"),
    ],
)
def test_what_it_cannot_do_is_refused(programs: Path, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        planned("all_reduce", programs, **options)
