"""``baseline record|show|diff`` and ``check --from RUN``: yesterday's facts, held against others and judged again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cwai_bench.cli.main import entry

if TYPE_CHECKING:
    from tests.unit.conftest import Planted


@pytest.fixture
def ran(planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with one check of the good node in it."""
    store = tmp_path / "store"
    monkeypatch.setenv("CWAI_BENCH_SPOOL", str(tmp_path / "spool"))
    command = [sys.executable, "-m", "cwai_bench", "check", "--root", str(planted.root), "--store", str(store)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 3), done.stderr
    return store


def test_a_baseline_is_recorded_shown_and_equal_to_itself(
    planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "base.json"
    assert entry(["baseline", "record", str(file), "--root", str(planted.root)]) == 0
    assert "node1" in capsys.readouterr().out
    assert entry(["baseline", "show", str(file), "--lang", "zh"]) == 0
    shown = capsys.readouterr().out
    assert "same.kernel" in shown
    assert "基线" in shown
    assert entry(["baseline", "diff", str(file), "--root", str(planted.root)]) == 0
    assert "0 differ, 0 could not be compared" in capsys.readouterr().out


def test_what_differs_is_named_with_both_values(
    planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    assert entry(["baseline", "record", str(first), "--root", str(planted.root)]) == 0
    planted.rename("node2").call("host", release="6.1.0-other")
    assert entry(["baseline", "record", str(second), "--root", str(planted.root)]) == 0
    capsys.readouterr()
    assert entry(["baseline", "diff", str(first), str(second)]) == 1
    out = capsys.readouterr().out
    assert "same.kernel\n" in out
    assert "+ node2: 6.1.0-other" in out
    assert "1 differ" in out
    assert entry(["baseline", "diff", str(first), str(second), "--json"]) == 1
    verdicts = json.loads(capsys.readouterr().out)
    assert [v["check"] for v in verdicts if v["status"] == "FAIL"] == ["same.kernel"]


def test_what_cannot_be_compared_is_no_equality(
    planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "base.json"
    assert entry(["baseline", "record", str(file), "--root", str(planted.root)]) == 0
    planted.remove("etc/os-release")
    assert entry(["baseline", "diff", str(file), "--root", str(planted.root)]) == 3
    assert "same.os\n  ?" in capsys.readouterr().out


def test_a_baseline_of_a_run(ran: Path, planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "base.json"
    assert entry(["baseline", "record", str(file), "--from", "last", "--store", str(ran)]) == 0
    assert entry(["baseline", "diff", str(file), "--root", str(planted.root)]) == 0
    capsys.readouterr()
    assert entry(["baseline", "record", str(file), "--from", "last", "--node", "node9", "--store", str(ran)]) == 2
    assert "node9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["record", "a.json", "b.json"], "one file"),
        (["record", "a.json", "--node", "n"], "--from"),
        (["show", "no-such.json"], "no-such.json"),
        (["store", "a.json"], "record"),
    ],
)
def test_wrong_words_are_refused(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry(["baseline", *words]) == 2
    assert says in capsys.readouterr().err


def test_facts_of_a_run_are_judged_again(
    ran: Path, planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base.json"
    planted.call("host", release="6.1.0-other")
    assert entry(["baseline", "record", str(base), "--root", str(planted.root)]) == 0
    shutil.rmtree(planted.root)  # nothing is read from here on
    capsys.readouterr()
    saved = {p: p.read_bytes() for p in ran.rglob("*") if p.is_file()}
    store = ["--from", "last", "--store", str(ran)]
    assert entry(["check", *store, "--items", "same.*", "--baseline", str(base), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [v["check"] for v in report["verdicts"] if v["status"] == "FAIL"] == ["same.kernel"]
    assert report["measurements"] == []

    strict = tmp_path / "strict.toml"
    strict.write_text('[criteria]\nmemory.total.min = "64 TiB"\n')
    out = tmp_path / "out"
    again = [*store, "--items", "memory.total", "--criteria", str(strict), "--out", str(out)]
    assert entry(["check", *again]) == 1
    assert (out / "report.html").is_file()
    assert {p: p.read_bytes() for p in ran.rglob("*") if p.is_file()} == saved, "the run stays as it is"


@pytest.mark.parametrize(
    ("words", "says"), [(["--hosts", "n[1-2]"], "--hosts"), (["--items", "mpi.*"], "none of these items")]
)
def test_judging_again_refuses_what_it_cannot_do(
    words: list[str], says: str, ran: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry(["check", "--from", "last", "--store", str(ran), *words]) == 2
    assert says in capsys.readouterr().err
