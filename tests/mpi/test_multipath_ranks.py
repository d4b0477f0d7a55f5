"""``cwai-bench multipath`` on one machine: two ranks are the two ends of the loopback interface."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mpi.conftest import AS_ROOT

pytestmark = pytest.mark.mpi

TOOL = [sys.executable, "-m", "cwai_bench", "multipath"]


def run(folder: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    done = subprocess.run(
        [*TOOL, "--repeat", "1", "--size", "8M", *options, "--store", str(folder / "store")],
        env={**os.environ, **AS_ROOT, "CWAI_BENCH_SPOOL": str(folder / "spool"), "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    (saved,) = (folder / "store").glob("[0-9]*/report.json")
    report: dict[str, Any] = json.loads(saved.read_text())
    return done, report


@pytest.mark.parametrize("ranks", ["1", "2"])
def test_all_policies_over_the_loopback_interface(tmp_path: Path, ranks: str) -> None:
    done, report = run(tmp_path, "-np", ranks)
    assert done.returncode == 0, done.stdout + done.stderr
    policies = {m["parameters"]["policy"] for m in report["measurements"]}
    assert policies == {"alone", "single", "round_robin", "equal", "weighted", "pull"}
    assert all(m["correct"] and m["status"] == "ok" for m in report["measurements"])
    (transfer,) = report["transfers"]
    assert (transfer["policy"], transfer["bytes"], transfer["delivered"]) == ("pull", 8 << 20, 8 << 20)
    assert [path["connections"] for path in transfer["paths"]] == [4]
    (verdict,) = (v for v in report["verdicts"] if v["check"] == "multipath.as_is")
    assert verdict["status"] == "PASS"
    assert "share its processor" in verdict["detail"]["en"]
    page = next((tmp_path / "store").glob("[0-9]*/report.html")).read_text()
    assert "Several paths at once" in page
    assert "多路径传输" in page


def test_a_rehearsal_of_a_single_path_is_skipped_and_so_is_no_verdict(tmp_path: Path) -> None:
    done, report = run(tmp_path, "--scenario", "cut")
    assert done.returncode == 3, done.stdout + done.stderr
    (verdict,) = (v for v in report["verdicts"] if v["check"] == "multipath.cut")
    assert (verdict["status"], verdict["reason_code"]) == ("SKIP", "unsupported")
