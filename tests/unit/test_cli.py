"""The command line as a person meets it: help, wrong words, wrong files, exit codes, and stdout that stays clean."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cwai_bench import __version__
from cwai_bench.cli import output
from cwai_bench.cli.main import COMMANDS, entry
from cwai_bench.cli.parser import seconds, size


def cwai(*arguments: str, spool: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cwai_bench", *arguments],
        env={**os.environ, "CWAI_BENCH_SPOOL": str(spool), "LC_ALL": "C.UTF-8", **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This machine, recorded: checks of it need no lock and give the same answer each time."""
    folder = tmp_path_factory.mktemp("recorded") / "node"
    done = cwai("record", str(folder), spool=folder.parent / "spool")
    assert done.returncode == 0, done.stderr
    return folder


def checked(recorded: Path, tmp_path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    store = ["--store", str(tmp_path / "store"), "--root", str(recorded)]
    return cwai("check", *store, *more, spool=tmp_path / "spool")


# ------------------------------------------------------------------------------------------ words


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_command_has_help_in_both_languages(command: str, lang: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        entry([command, "--lang", lang, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert ("用法" in out) == (lang == "zh")
    assert ("usage" in out) == (lang == "en")
    assert "--lang" in out


def test_help_names_all_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        entry(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)
    assert "3  no verdict" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        entry(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"cwai-bench {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chek"], "did you mean 'check'"),
        (["check", "--stroe", "x"], "did you mean --store"),
        (["check", "--items", "cpu.govenor"], "did you mean 'cpu.governor'"),
        (["check", "--format", "hmtl"], "did you mean 'html'"),
        (["check", "--lang", "fr"], "not zh or en"),
        (["check", "--budget", "soon"], "--budget"),
        (["run", "--hosts", "node[01-"], "--hosts"),
        (["rdma", "--sizes", "12Q"], "--sizes"),
        (["rdma", "--transport", "pigeon"], "pigeon"),
        (["check", "--root", "/nowhere/at/all"], "/nowhere/at/all"),
        (["check", "--criteria", "/nowhere/criteria.toml"], "/nowhere/criteria.toml"),
        (["check", "--baseline", "/nowhere/base.json"], "/nowhere/base.json"),
        (["check", "--config", "/nowhere/config.toml"], "/nowhere/config.toml"),
        (["check", "--store", "/proc/nowhere"], "/proc/nowhere"),
        (["gate", "--items", "cpu.governor"], "no command"),
        (["gate", "--", "no-such-command-at-all"], "no-such-command-at-all"),
        (["history", "show"], "needs a run"),
        (["history", "show", "nothing-of-the-kind"], "nothing-of-the-kind"),
        (["report", "nothing-of-the-kind"], "nothing-of-the-kind"),
        (["collective"], "-np"),
        (["rdma", "--interface", "nic9"], "--interface 'nic9': there is no such NIC or address here"),
        (["rdma", "--interface", "127.0.0.2"], "did you mean '127.0.0.1'?"),
        (["rdma", "--dry-run", "--interface", "nic9"], "here are: lo"),
    ],
)
def test_what_is_wrong_is_named_with_the_next_step(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("CWAI_BENCH_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert entry(words) == 2
    caught = capsys.readouterr()
    assert caught.out == ""
    assert message in caught.err
    assert "Traceback" not in caught.err


def test_no_command_is_an_error_that_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry([]) == 2
    assert "cwai-bench run" in capsys.readouterr().out


def test_sizes_and_times() -> None:
    assert [size(s) for s in ("8", "64K", "1M", "2GiB")] == [8, 65536, 1 << 20, 2 << 30]
    assert [seconds(s) for s in ("50", "1.5s", "2m", "1h")] == [50, 1.5, 120, 3600]
    for wrong in ("", "-1", "0", "1T", "x"):
        with pytest.raises(ValueError, match=wrong or None):
            size(wrong)


# ------------------------------------------------------------------------------------------ files


def test_a_config_file_sets_defaults_and_the_command_line_wins(recorded: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[options]\nlang = "zh"\nstore = "{tmp_path}/shared"\nitems = "memory.*"\n')
    done = checked(recorded, tmp_path, "--config", str(config), "--json")
    report = json.loads(done.stdout)
    assert {v["check"].split(".")[0] for v in report["verdicts"]} <= {"memory", "run"}
    assert not (tmp_path / "shared").exists(), "--store on the command line wins"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[options]\nstroe = 'x'", "store"),
        ("[options]\nstore = [", "not valid TOML"),
        ("[options]\nbudget = 'soon'", "budget"),
        ("[options]\nverbose = 3", "true or false"),
        ("[optoins]\n", "optoins"),
    ],
)
def test_a_wrong_config_file_is_refused(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(text)
    assert entry(["check", "--lang", "en", "--config", str(config)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"run_id": 3}', b"[]", b'{"schema": 99}'])
def test_a_broken_report_is_refused_by_name(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    assert entry(["report", str(path), "--lang", "en"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "report" in err


# ------------------------------------------------------------------------------------------ a whole run


def test_json_is_alone_on_stdout(recorded: Path, tmp_path: Path) -> None:
    done = checked(recorded, tmp_path, "--json")
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["gate"]["exit_code"] == done.returncode
    assert report["run_type"] == "check"
    assert report["verdicts"]


def test_the_report_is_written_in_all_formats_that_were_asked_for(recorded: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = checked(recorded, tmp_path, "--out", str(out), "--format", "markdown,junit,csv,text")
    names = {p.name for p in out.iterdir()}
    assert {"report.json", "report.html", "report.md", "report.csv"} <= names
    assert len(names) == 6
    assert str(out / "report.html") in done.stdout


def test_a_dry_run_does_nothing(tmp_path: Path) -> None:
    done = cwai("run", "-np", "2", "--dry-run", "--store", str(tmp_path / "store"), spool=tmp_path / "spool")
    assert done.returncode == 0
    assert "expected time" in done.stdout
    assert "mpi.all_reduce" in done.stdout
    assert not (tmp_path / "store").exists()


def test_history_lists_shows_and_deletes(recorded: Path, tmp_path: Path) -> None:
    checked(recorded, tmp_path)
    store = ["--store", str(tmp_path / "store")]
    rows = json.loads(cwai("history", "list", "--json", *store, spool=tmp_path / "spool").stdout)
    assert [(r["run_type"], r["status"]) for r in rows] == [("check", "complete")]
    run_id = rows[0]["run_id"]
    shown = cwai("history", "show", run_id[-6:], *store, spool=tmp_path / "spool")
    assert run_id in shown.stdout
    assert cwai("history", "delete", "last", *store, spool=tmp_path / "spool").returncode == 0
    assert cwai("history", "list", *store, spool=tmp_path / "spool").stdout == "no runs yet\n"


def test_a_killed_run_lists_as_partial_and_still_renders(recorded: Path, tmp_path: Path) -> None:
    """As a machine that lost power leaves it: a journal in the spool, its last line cut, and no report."""
    checked(recorded, tmp_path)
    folder = next((tmp_path / "store").iterdir())
    spooled = tmp_path / "spool" / folder.name
    spooled.mkdir()
    journal = next((folder / "journal").iterdir())
    lines = journal.read_bytes().splitlines(keepends=True)
    (spooled / journal.name).write_bytes(b"".join(lines[:-1])[:-3])
    store = ["--store", str(tmp_path / "empty")]
    listed = json.loads(cwai("history", "list", "--json", *store, spool=tmp_path / "spool").stdout)
    assert [(r["run_id"], r["status"], r["gate"]) for r in listed] == [(folder.name, "partial", None)]
    refused = cwai("history", "show", "last", *store, spool=tmp_path / "spool")
    assert refused.returncode == 2
    assert "cwai-bench report" in refused.stderr
    done = cwai("report", "last", *store, "--out", str(tmp_path / "late"), spool=tmp_path / "spool")
    assert (tmp_path / "late" / "report.html").exists(), done.stderr
    assert "partial" in done.stdout


def test_an_old_run_is_judged_by_new_rules(recorded: Path, tmp_path: Path) -> None:
    first = checked(recorded, tmp_path, "--items", "memory.total")
    criteria = tmp_path / "criteria.toml"
    criteria.write_text('[criteria]\nmemory.total.min = "9999 TiB"\n')
    store = ["--store", str(tmp_path / "store")]
    again = cwai("report", "last", *store, "--criteria", str(criteria), spool=tmp_path / "spool")
    assert (first.returncode, again.returncode) != (1, 1)
    assert again.returncode == 1
    same = cwai("report", "last", *store, "--no-gate", "--criteria", str(criteria), spool=tmp_path / "spool")
    assert same.returncode == 0


def test_a_folder_that_is_no_run_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "holiday-pictures"
    folder.mkdir()
    for command in (["report", str(folder)], ["history", "show", str(folder)]):
        assert entry([*command, "--lang", "en"]) == 2
        assert "holiday-pictures" in capsys.readouterr().err


def test_a_run_folder_may_be_renamed(recorded: Path, tmp_path: Path) -> None:
    checked(recorded, tmp_path)
    folder = next((tmp_path / "store").iterdir()).rename(tmp_path / "ticket-4711")
    done = cwai("report", str(folder), "--no-gate", spool=tmp_path / "spool")
    assert done.returncode == 0, done.stderr


def test_the_store_of_someone_else_is_one_clear_message(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.write_text("a file, not a folder")
    done = cwai("check", "--store", str(store), spool=tmp_path / "spool")
    assert done.returncode == 2
    assert str(store) in done.stderr
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------ output that goes nowhere


def to(stdout: str, recorded: Path, tmp_path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A check whose standard output is a closed pipe, or a device that is full."""
    store = ["--store", str(tmp_path / "store"), "--root", str(recorded)]
    words = [sys.executable, "-m", "cwai_bench", "check", *store, *more]
    env = {**os.environ, "CWAI_BENCH_SPOOL": str(tmp_path / "spool"), "LC_ALL": "C.UTF-8"}
    if stdout == "closed":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open(stdout, os.O_WRONLY)
    try:
        return subprocess.run(words, env=env, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(writing)


@pytest.mark.parametrize("stdout", ["closed", "/dev/full"])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_verdict_stands_whoever_reads_it(stdout: str, form: tuple[str, ...], recorded: Path, tmp_path: Path) -> None:
    strict = tmp_path / "strict.toml"
    strict.write_text('[criteria]\nmemory.total.min = "64000 TiB"\n')
    done = to(stdout, recorded, tmp_path, "--items", "memory.total", "--criteria", str(strict), *form)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert ("standard output" in done.stderr) == (stdout == "/dev/full")


def test_a_result_that_nobody_was_told_is_no_pass(recorded: Path, tmp_path: Path) -> None:
    lax = tmp_path / "lax.toml"
    lax.write_text('[criteria]\nmemory.total.min = "1 MiB"\n')
    chosen = ("--items", "memory.total", "--criteria", str(lax))
    assert to("closed", recorded, tmp_path, *chosen).returncode == 0
    assert to("/dev/full", recorded, tmp_path, *chosen).returncode == 3


def test_a_listing_that_cannot_be_written_says_so() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "cwai_bench", "check", "--list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert "standard output" in done.stderr
    assert done.returncode == 3


def test_a_terminal_that_lacks_a_character_gets_another(recorded: Path, tmp_path: Path) -> None:
    env = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    store = ["--store", str(tmp_path / "store"), "--root", str(recorded)]
    done = cwai("check", *store, "--lang", "zh", spool=tmp_path / "spool", env=env)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1, 3)
    assert "?" in done.stdout


def test_a_folder_out_of_reach_is_one_clear_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refused)
    assert entry(["record", str(tmp_path / "node")]) == 2
    assert "Permission denied" in capsys.readouterr().err


def test_a_lone_node_has_no_other_for_a_baseline(recorded: Path, tmp_path: Path) -> None:
    done = checked(recorded, tmp_path, "--baseline", "node99")
    assert done.returncode == 2
    assert "node99" in done.stderr
    assert not (tmp_path / "store").exists() or not list((tmp_path / "store").iterdir())


def test_tcp_in_place_of_rdma_is_told(tmp_path: Path) -> None:
    words = ["rdma", "--sizes", "64K", "--duration", "0.1", "--kind", "bandwidth", "--store", str(tmp_path / "store")]
    done = cwai(*words, spool=tmp_path / "spool")
    assert "TCP is measured instead" in done.stdout, done.stderr


LOOKS = """
import sys
from cwai_bench.cli.main import entry
from cwai_bench.probes import hca

look = hca.look
hca.look = lambda: print("looked", file=sys.stderr) or look()
sys.exit(entry(sys.argv[1:]))
"""


def test_a_process_alone_looks_at_its_nics_once(tmp_path: Path) -> None:
    words = ["rdma", "--items", "loopback.*", "--sizes", "64K", "--duration", "0.1", "--store", str(tmp_path / "store")]
    done = subprocess.run([sys.executable, "-c", LOOKS, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines().count("looked") == 1


LISTED = [
    ["20261125T145539Z-check-ba92b9", "2026-11-25", "1 个节点", "WARN (0)", ""],
    ["x", "-", "-", "-", "a b " * 20],
]


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (
            None,
            ["20261125T145539Z-check-ba92b9  2026-11-25  1 个节点  WARN (0)", "x" + " " * 30 + "-" + " " * 11 + "-"],
        ),
        (110, ["20261125T145539Z-check-ba92b9  2026-11-25  1 个节点  WARN (0)", "x" + " " * 30 + "-" + " " * 11 + "-"]),
        (50, ["20261125T145539Z-check-ba92b9  2026-11-25", "  1 个节点  WARN (0)", "x  -  -  -", "  a b a b a b"]),
    ],
)
def test_a_listing_is_laid_out_for_the_terminal(
    width: int | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.cells import cell_len

    monkeypatch.setattr(output, "_terminal_width", lambda: width)
    lines = output.columns(LISTED).splitlines()
    assert [line.startswith(start) for line, start in zip(lines, expected, strict=False)] == [True] * len(expected)
    assert all(cell_len(line) <= (width or 999) for line in lines)
    assert "".join(lines).split().count("a") == 20, "nothing is cut off"


def test_more_is_said_when_asked_for(recorded: Path, tmp_path: Path) -> None:
    brief = checked(recorded, tmp_path, "--items", "memory.total,memory.corrupted,kernel.taint")
    full = checked(recorded, tmp_path, "--items", "memory.total,memory.corrupted,kernel.taint", "-v")
    assert "memory.corrupted" not in brief.stdout
    assert "memory.corrupted" in full.stdout
    store = ["--store", str(tmp_path / "store")]
    assert "memory.corrupted" not in cwai("history", "show", "last", *store, spool=tmp_path / "spool").stdout
    assert "memory.corrupted" in cwai("history", "show", "last", "-v", *store, spool=tmp_path / "spool").stdout


def test_progress_says_that_its_time_is_the_time_elapsed(capsys: pytest.CaptureFixture[str]) -> None:
    from cwai_bench.cli import progress
    from cwai_bench.text import LANGS, Text

    for lang in LANGS:
        progress.Lines(lang).begin(1, 2, Text("server check", "服务器检测"), 1.0)
    assert capsys.readouterr().err.splitlines() == [
        "1/2 服务器检测 (已用 0.0 秒)" if lang == "zh" else "1/2 server check (0.0 s elapsed)" for lang in LANGS
    ]
