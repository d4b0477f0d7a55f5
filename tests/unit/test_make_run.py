"""``make run`` succeeds on any complete report, whatever the verdict, and on nothing else."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import make_run


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(make_run, "STORE", tmp_path)
    monkeypatch.setattr("sys.argv", ["make_run.py"])
    return tmp_path


def ends(monkeypatch: pytest.MonkeyPatch, code: int, *, write: Callable[[], object] = lambda: None) -> None:
    """The main job, in place of which ``write`` runs."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        write()
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr("subprocess.run", run)


def report(folder: Path, code: int, status: str = "complete", *, page: bool = True) -> None:
    folder.mkdir()
    content = {"status": status, "gate": {"exit_code": code}, "started": 100.0, "finished": 112.0}
    (folder / "report.json").write_text(json.dumps(content))
    if page:
        (folder / "report.html").write_text("<!doctype html>")


@pytest.mark.parametrize("code", [0, 1, 3])
def test_any_verdict_of_a_complete_report_will_do(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    report(store / "earlier", 0)
    ends(monkeypatch, code, write=lambda: report(store / "new", code))
    assert make_run.main() == 0
    said = capsys.readouterr().out
    assert f"exit code {code}" in said
    assert "12 s" in said
    assert str(store / "new" / "report.html") in said


@pytest.mark.parametrize("code", [2, 130, 137])
def test_an_exit_code_that_is_no_verdict_fails(store: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    ends(monkeypatch, code, write=lambda: report(store / "new", code))
    assert make_run.main() == 1


def test_no_new_report_fails(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report(store / "earlier", 0)
    ends(monkeypatch, 0)
    assert make_run.main() == 1


@pytest.mark.parametrize(
    ("status", "told", "page"),
    [("partial", 3, True), ("terminated", 3, True), ("complete", 1, True), ("complete", 3, False)],
)
def test_a_report_that_is_not_whole_fails(
    store: Path, monkeypatch: pytest.MonkeyPatch, status: str, told: int, page: bool
) -> None:
    ends(monkeypatch, 3, write=lambda: report(store / "new", told, status, page=page))
    assert make_run.main() == 1
