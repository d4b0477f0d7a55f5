"""Running a person's own script: its limit, what it leaves behind, how much of it is kept, what it is given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from cwai_bench.config import parse_criteria
from cwai_bench.discover import script as door
from cwai_bench.discover.script import OUTPUT_LIMIT
from cwai_bench.errors import Interrupted
from cwai_bench.model import Reading
from cwai_bench.scripts import Script


def script(text: str, fields: str = "limit = 20") -> Script:
    (spec,) = parse_criteria(f'[script]\na = {{ file = "a.sh", {fields} }}\n', "my.toml", {}, []).scripts.values()
    return Script(spec, text)


def run(text: str, fields: str = "limit = 20") -> Reading:
    return door.run(script(text, fields), "node1", "20260101T000000Z-check-abcdef")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(*pids: int, within: float = 5.0) -> bool:
    end = time.monotonic() + within
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(alive(pid) for pid in pids)


def pids_in(path: Path, count: int) -> list[int]:
    end = time.monotonic() + 10.0
    while time.monotonic() < end:
        if path.exists() and len(found := path.read_text().split()) == count:
            return [int(word) for word in found]
        time.sleep(0.02)
    raise AssertionError(f"{path} does not name {count} processes")


def test_what_it_says_and_how_it_ends() -> None:
    found = run('#!/bin/sh\necho out; echo err >&2; echo "$1|$2"; exit 3\n', 'args = ["a b", "$HOME"]')
    assert (found.source, found.status, found.exit_code) == ("script:script.a", "ok", 3)
    assert found.text == "out\nerr\na b|$HOME\n"
    assert found.detail == ""
    assert found.duration > 0


def test_it_is_given_what_is_documented_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CWAI_BENCH_FRONT", "a secret")
    monkeypatch.setenv("SECRET", "x")
    found = run("#!/bin/sh\nenv; pwd; cat; ps -o pid=,sid= -p $$ 2>/dev/null || true\n")
    names = {line.split("=")[0] for line in found.text.splitlines() if "=" in line}
    assert names <= {
        "PATH",
        "HOME",
        "USER",
        "LD_LIBRARY_PATH",
        "XDG_RUNTIME_DIR",
        "LC_ALL",
        "CWAI_BENCH_NODE",
        "CWAI_BENCH_RUN",
        "CWAI_BENCH_ITEM",
        "PWD",
        "_",
        "SHLVL",
        "OLDPWD",
    }
    assert "CWAI_BENCH_NODE=node1\n" in found.text
    assert "CWAI_BENCH_ITEM=script.a\n" in found.text
    assert "CWAI_BENCH_RUN=20260101T000000Z-check-abcdef\n" in found.text
    assert "\n/\n" in found.text


@pytest.mark.parametrize("first", [sys.executable, "/usr/bin/env python3"])
def test_its_first_line_says_what_runs_it(first: str) -> None:
    assert run(f"#!{first}\nimport sys\nprint(sys.argv[1:])\n", 'args = ["x"]').text == "['x']\n"


def test_it_cannot_change_its_own_text() -> None:
    assert run('#!/bin/sh\necho "exit 0" > "$0" && echo written; exit 4\n').exit_code in (2, 4)


def test_an_interpreter_that_is_not_there_is_missing() -> None:
    found = run("#!/no/such/interpreter -x\n")
    assert (found.status, found.exit_code) == ("missing", None)
    assert "#!/no/such/interpreter -x" in found.detail


def test_one_that_asks_for_root_is_not_run_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = run(f"#!/bin/sh\ntouch {tmp_path}/ran\n", "root = true")
    assert found.status == "denied"
    assert not (tmp_path / "ran").exists()


def test_a_signal_that_ends_it_is_told() -> None:
    found = run("#!/bin/sh\necho so far; kill -SEGV $$\n")
    assert (found.status, found.exit_code, found.text) == ("ok", -signal.SIGSEGV, "so far\n")


def test_at_its_limit_it_ends_with_all_that_it_started(tmp_path: Path) -> None:
    started = time.monotonic()
    found = run(
        # One in its group that ignores SIGTERM, one in a session of its own, and itself, which ignores SIGTERM too.
        f"#!/bin/bash\ntrap '' TERM\necho begun\n(trap '' TERM; sleep 600) & echo $! >> {tmp_path}/pids\n"
        f"setsid sleep 600 & echo $! >> {tmp_path}/pids\necho $$ >> {tmp_path}/pids\nwait\n",
        "limit = 1",
    )
    assert time.monotonic() - started < 1 + door.OVERHEAD_SECONDS
    assert (found.status, found.text, found.exit_code) == ("timeout", "begun\n", None)
    assert found.detail == "ended after 1 s"
    assert gone(*pids_in(tmp_path / "pids", 3), within=0)


def test_sigterm_comes_first_so_that_it_can_clean_up(tmp_path: Path) -> None:
    found = run(f"#!/bin/bash\ntrap 'touch {tmp_path}/cleaned; exit 9' TERM\nsleep 600 & wait\n", "limit = 0.5")
    assert found.status == "timeout"
    assert (tmp_path / "cleaned").exists()


def test_what_it_leaves_behind_is_ended_and_told_of(tmp_path: Path) -> None:
    started = time.monotonic()
    found = run(f"#!/bin/sh\nsleep 600 & echo $! > {tmp_path}/pids\nsetsid sleep 600 &\necho done\n")
    assert time.monotonic() - started < 15
    assert (found.status, found.exit_code, found.text) == ("ok", 0, "done\n")
    assert "left behind" in found.detail
    assert gone(*pids_in(tmp_path / "pids", 1), within=0)


def test_a_background_process_that_never_stops_talking_does_not_hold_it_up() -> None:
    started = time.monotonic()
    found = run("#!/bin/sh\nyes &\necho done\n")
    assert time.monotonic() - started < 15
    assert (found.status, found.exit_code, found.truncated) == ("ok", 0, True)


def test_of_much_output_the_beginning_is_kept() -> None:
    found = run("#!/bin/sh\necho first\nhead -c 50000000 /dev/zero | tr '\\0' x\nexit 7\n")
    assert (found.status, found.exit_code, found.truncated) == ("ok", 7, True)
    assert found.text.startswith("first\nxxx")
    assert len(found.text.encode()) == OUTPUT_LIMIT


def test_bytes_that_are_no_text_are_kept_as_text_and_bounded() -> None:
    found = run("#!/bin/sh\nhead -c 1000000 /dev/urandom; printf '\\033[2J\\000'\n")
    assert (found.status, found.exit_code, found.truncated) == ("ok", 0, True)
    assert len(found.text.encode()) <= OUTPUT_LIMIT
    assert msgspec.json.decode(msgspec.json.encode(found), type=Reading) == found


def test_an_argument_that_no_program_takes_is_an_error() -> None:
    (spec,) = parse_criteria('[script]\na.file = "a"', "my.toml", {}, []).scripts.values()
    bad = Script(msgspec.structs.replace(spec, arguments=["\0"]), "#!/bin/sh\n")
    assert door.run(bad, "node1", "r").status == "error"


def test_an_interrupt_ends_it_at_once(tmp_path: Path) -> None:
    def stop(number: int, _frame: object) -> None:
        raise Interrupted(number)

    before = signal.signal(signal.SIGALRM, stop)
    started = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.5)
        with pytest.raises(Interrupted):
            run(
                f"#!/bin/bash\necho $$ >> {tmp_path}/pids\nsleep 600 & echo $! >> {tmp_path}/pids\nwait\n", "limit = 60"
            )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < 10
    assert gone(*pids_in(tmp_path / "pids", 2), within=0)


def test_it_does_not_outlive_whoever_runs_it(tmp_path: Path) -> None:
    text = f"#!/bin/bash\necho $$ >> {tmp_path}/pids\nsetsid sleep 600 & echo $! >> {tmp_path}/pids\nwait\n"
    (tmp_path / "script.json").write_bytes(msgspec.json.encode(script(text)))
    runner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, msgspec\nfrom pathlib import Path\nfrom cwai_bench.discover.script import run\n"
            "from cwai_bench.scripts import Script\n"
            "run(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Script), 'node1', 'r')",
            str(tmp_path / "script.json"),
        ]
    )
    pids = pids_in(tmp_path / "pids", 2)
    runner.kill()
    runner.wait()
    assert gone(*pids)
