"""Reading: what hangs, lies, escapes or is too large."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest

from cwai_bench.discover import CALLS, COMMANDS_AT_ONCE, Runner, command, read_node, tree
from cwai_bench.discover.reader import Reader
from cwai_bench.discover.recorded import RecordedNode
from cwai_bench.discover.tree import Tree
from cwai_bench.model import Reading
from cwai_bench.sources import Call, Command, Each, File, Limits, Source
from tests.unit.conftest import GOOD


def soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


# --------------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/plain").write_text("inside\n")
    (tmp_path / "secret").write_text("outside\n")
    return root


def read(root: Path, path: str) -> Reading:
    (reading,) = Tree(root).read(File(path))
    return reading


@pytest.mark.parametrize(
    ("target", "status", "text"),
    [
        ("etc/plain", "ok", "inside\n"),
        ("/etc/plain", "ok", "inside\n"),  # absolute: as if the root were /
        ("../../../../etc/plain", "ok", "inside\n"),  # .. stops at the root
        ("../secret", "missing", ""),
        ("/secret", "missing", ""),
        ("link", "error", ""),  # itself
        ("etc", "error", ""),  # a folder
        ("etc/plain/below", "missing", ""),
    ],
)
def test_links_stay_inside_the_root(recorded: Path, target: str, status: str, text: str) -> None:
    (recorded / "link").symlink_to(target)
    found = read(recorded, "link")
    assert (found.status, found.text) == (status, text)


def test_a_link_to_the_real_file_outside_is_not_followed(recorded: Path) -> None:
    (recorded / "link").symlink_to(recorded.parent / "secret")
    assert read(recorded, "link").status == "missing"
    (recorded / "up").symlink_to("..")
    assert read(recorded, "up/secret").status == "missing"


def test_folders_that_are_links_are_walked_inside(recorded: Path) -> None:
    (recorded / "sys/devices/net/eth0").mkdir(parents=True)
    (recorded / "sys/devices/net/eth0/mtu").write_text("1500\n")
    (recorded / "sys/class").mkdir()
    (recorded / "sys/class/net").symlink_to("/sys/devices/net")
    listing, found = Tree(recorded).read(File("sys/class/net/*/mtu"))
    assert listing.text == "sys/class/net/eth0/mtu"
    assert found.text == "1500\n"


def test_what_is_no_plain_file_is_not_opened(recorded: Path) -> None:
    os.mkfifo(recorded / "etc/fifo")
    started = time.monotonic()
    assert read(recorded, "etc/fifo").status == "error"
    assert time.monotonic() - started < 5.0


def test_large_files_are_cut_and_say_so(recorded: Path) -> None:
    (recorded / "etc/large").write_bytes(b"x" * (tree.TEXT_LIMIT + 1))
    found = read(recorded, "etc/large")
    assert (found.status, found.truncated, len(found.text)) == ("ok", True, tree.TEXT_LIMIT)
    (recorded / "etc/exact").write_bytes(b"x" * tree.TEXT_LIMIT)
    assert not read(recorded, "etc/exact").truncated


def test_bytes_that_are_no_text_are_shown(recorded: Path) -> None:
    (recorded / "etc/odd").write_bytes(b"a\xff\x00b\n")
    assert read(recorded, "etc/odd").text == "a\\xff\x00b\n"
    (recorded / "etc/noise").write_bytes(b"\xff" * tree.TEXT_LIMIT)
    noise = read(recorded, "etc/noise")
    assert noise.truncated
    assert len(noise.text.encode()) <= tree.TEXT_LIMIT


def test_globs_are_bounded(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(20):
        (recorded / f"etc/f{i:02}").write_text(str(i))
    assert len(Tree(recorded).read(File("etc/f*"))) == 21
    monkeypatch.setattr(tree, "GLOB_FILES", 5)
    listing, *found = Tree(recorded).read(File("etc/f*"))
    assert listing.truncated
    assert [f.text for f in found] == ["0", "1", "2", "3", "4"]
    monkeypatch.setattr(tree, "GLOB_ENTRIES", 5)
    (listing,) = Tree(recorded).read(File("etc/f*"))
    assert listing.status == "missing"


def test_globs_never_cross_a_slash_and_see_no_hidden_file(recorded: Path) -> None:
    (recorded / "etc/sub").mkdir()
    (recorded / "etc/sub/plain").write_text("deeper\n")
    (recorded / "etc/.hidden").write_text("x")
    listing = Tree(recorded).read(File("etc/*"))[0]
    assert listing.text.split("\n") == ["etc/plain", "etc/sub"]
    assert Tree(recorded).read(File("etc/*/plain"))[0].text == "etc/sub/plain"


def test_a_denied_folder_is_denied_and_not_missing(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Tree, path: str) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Tree, "names", refuse)
    (listing,) = Tree(recorded).read(File("etc/*"))
    assert listing.status == "denied"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_denied_file_is_denied(recorded: Path) -> None:
    (recorded / "etc/plain").chmod(0)
    assert read(recorded, "etc/plain").status == "denied"


def test_sources_outside_the_root_are_refused_when_written() -> None:
    for path in ("/etc/passwd", "../etc/passwd", "a/../../b"):
        with pytest.raises(ValueError, match="below the root"):
            File(path)
    with pytest.raises(ValueError, match="without blanks"):
        Command("echo", "a b")


# ------------------------------------------------------------------------------------------------------------ commands


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def script(tmp_path: Path, text: str) -> Command:
    path = tmp_path / "script.sh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return Command(str(path))


def test_a_command_is_read_with_its_exit_code(tmp_path: Path) -> None:
    found = command.run(script(tmp_path, "echo out; echo err >&2; exit 3"), 5.0)
    assert (found.status, found.text, found.detail, found.exit_code) == ("ok", "out\n", "err", 3)


def test_a_command_runs_apart_without_input_in_the_c_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    found = command.run(script(tmp_path, 'cat; echo "$LC_ALL $$ $SECRET_TOKEN"; cut -d" " -f1,6 /proc/$$/stat'), 5.0)
    locale, pid = found.text.split()[:2]
    assert locale == "C"
    assert found.text.split()[2:] == [pid, pid], "it leads a session of its own"
    assert "hunter2" not in found.text


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    started = time.monotonic()
    hang = script(tmp_path, f"trap '' TERM\necho partial\nsleep 300 & echo $$ $! > {pids}\nwait\nsleep 300")
    found = command.run(hang, 0.5)
    assert time.monotonic() - started < 3.0
    assert (found.status, found.text) == ("timeout", "partial\n")
    assert "ended after 0.5 s" in found.detail
    deadline = soon(2.0)
    while not all(gone(int(p)) for p in pids.read_text().split()):
        assert time.monotonic() < deadline, "it left a process behind"
        time.sleep(0.02)


def test_a_command_that_cannot_be_killed_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it sat in a driver: signals do nothing. The run goes on and says so."""
    monkeypatch.setattr(os, "killpg", lambda group, sign: None)
    started = time.monotonic()
    found = command.run(script(tmp_path, "exec sleep 300"), 0.2)
    assert time.monotonic() - started < 2.0
    assert found.status == "timeout"
    assert "cannot be killed" in found.detail
    left = command._abandoned.pop()
    left.kill()
    left.wait()


def test_a_grandchild_that_keeps_the_pipes_is_not_waited_for(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    started = time.monotonic()
    found = command.run(script(tmp_path, f"sleep 300 & echo $! > {pids}\necho done"), 10.0)
    assert time.monotonic() - started < 3.0
    assert (found.status, found.text, found.exit_code) == ("ok", "done\n", 0)
    deadline = soon(2.0)
    while not gone(int(pids.read_text())):
        assert time.monotonic() < deadline, "it left a process behind"
        time.sleep(0.02)


def test_endless_output_is_cut(tmp_path: Path) -> None:
    found = command.run(script(tmp_path, "yes | head -c 5000000"), 20.0)
    assert (found.status, found.truncated, len(found.text)) == ("ok", True, tree.TEXT_LIMIT)


def test_no_such_command_is_missing_and_no_permission_denied(tmp_path: Path) -> None:
    assert command.run(Command("no-such-command"), 1.0).status == "missing"
    plain = tmp_path / "plain"
    plain.write_text("")
    assert command.run(Command(str(plain)), 1.0).status == "denied"


# ----------------------------------------------------------------------------------------------- the child that reads


def test_the_reader_survives_what_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that never answers (a FIFO: as a driver that hangs) takes one source, and the next one is read."""
    with Reader() as child:
        first = child.read(File("proc/sys/kernel/ostype"), 5.0)[0]
        assert first.text == "Linux\n"
        assert child._process is not None
        stopped = child._process.pid
        os.kill(stopped, signal.SIGSTOP)  # the child sits still, as in a driver that hangs
        started = time.monotonic()
        (hung,) = child.read(File("proc/meminfo"), 0.3)
        assert time.monotonic() - started < 3.0
        assert (hung.source, hung.status) == ("proc/meminfo", "timeout")
        assert gone(stopped)
        assert child.read(File("proc/meminfo"), 5.0)[0].text.startswith("MemTotal")


def test_a_reader_that_cannot_be_killed_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    with Reader() as child:
        child.read(File("proc/sys/kernel/ostype"), 5.0)
        assert child._process is not None
        pid = child._process.pid
        os.kill(pid, signal.SIGSTOP)
        with monkeypatch.context() as patched:
            patched.setattr(os, "killpg", lambda group, sign: None)
            (hung,) = child.read(File("proc/meminfo"), 0.2)
        assert f"{pid} cannot be killed" in hung.detail
        assert child.read(File("proc/meminfo"), 5.0)[0].status == "ok"
    left = command._abandoned.pop()
    left.kill()
    left.wait()


def test_a_reader_that_dies_takes_one_source() -> None:
    with Reader() as child:
        child.read(File("proc/sys/kernel/ostype"), 5.0)
        assert child._process is not None
        child._process.kill()
        (dead,) = child.read(File("proc/meminfo"), 5.0)
        assert dead.status == "error"
        assert child.read(File("proc/meminfo"), 5.0)[0].status == "ok"


def test_a_reader_that_cannot_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cwai_bench.discover.reader.sys.executable", "/no/such/python")
    with Reader() as child:
        (found,) = child.read(File("proc/meminfo"), 5.0)
    assert found.status == "error"
    assert "could not be started" in found.detail


def test_a_child_that_breaks_at_the_start_tells_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "msgspec.py").write_text("raise RuntimeError('this msgspec is broken')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with Reader() as child:
        (found,) = child.read(File("proc/meminfo"), 5.0)
    assert found.status == "error"
    assert "this msgspec is broken" in found.detail


def test_the_child_does_not_import_from_where_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "msgspec.py").write_text("raise RuntimeError('not mine')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    with Reader() as child:
        assert child.read(File("proc/sys/kernel/ostype"), 5.0)[0].text == "Linux\n"


def test_no_child_outlives_the_reader() -> None:
    with Reader() as child:
        child.read(File("proc/meminfo"), 5.0)
        assert child._process is not None
        pid = child._process.pid
    assert gone(pid)


def test_a_deadline_that_is_over_reads_nothing() -> None:
    facts = read_node("n", None, [File("proc/meminfo"), Call("host"), Command("uname")], time.monotonic() - 1)
    assert {r.status for r in facts.readings.values()} == {"timeout"}
    assert len(facts.readings) == 3


def test_a_hung_command_does_not_hold_up_the_rest() -> None:
    started = time.monotonic()
    facts = read_node("n", None, [Command("sleep", "60", timeout=0.4), File("proc/meminfo"), Call("host")], soon())
    assert time.monotonic() - started < 3.0
    assert {k: r.status for k, r in facts.readings.items()} == {
        "$ sleep 60": "timeout",
        "proc/meminfo": "ok",
        "call:host": "ok",
    }


def test_the_longest_time_limit_asked_for_counts() -> None:
    both = [Command("sleep", "0.5", timeout=0.1), Command("sleep", "0.5", timeout=5.0)]
    assert read_node("n", None, both, soon()).readings["$ sleep 0.5"].status == "ok"


# --------------------------------------------------------------------------------------------------------------- calls


@pytest.mark.parametrize("name", list(CALLS))
def test_each_call_answers_on_this_machine(name: str) -> None:
    """Whatever machine this is: a call answers in its shape, or says that it is missing or denied. Never a bug."""
    reading = read_node("n", None, [Call(name)], soon()).readings[f"call:{name}"]
    if reading.status in ("missing", "denied"):
        assert reading.detail
        return
    assert reading.status == "ok", reading
    shape = get_type_hints(CALLS[name])["return"]
    assert msgspec.json.encode(msgspec.json.decode(reading.text, type=shape)) == reading.text.encode()


def test_limits_are_those_of_the_process() -> None:
    import resource

    found = msgspec.json.decode(
        read_node("n", None, [Call("limits")], soon()).readings["call:limits"].text, type=Limits
    )
    assert found.limits["nofile"] == resource.getrlimit(resource.RLIMIT_NOFILE)


def test_reading_changes_no_process_state(tmp_path: Path) -> None:
    """No child is left, no descriptor leaks."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    read_node("n", None, [File("proc/meminfo"), Call("host"), Command("uname")], soon())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    children = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "comm="], capture_output=True, text=True)
    assert "python" not in children.stdout


# --------------------------------------------------------------------------------------- a recorded node, commands run


def test_the_commands_of_a_recorded_node_can_be_run_by_whom_one_likes(tmp_path: Path) -> None:
    each = Each("mlxlink", "-d", "{}", "-c", over="sys/class/infiniband/*")
    hangs = Command("ofed_info", "-s")
    wanted: list[Source] = [each, hangs, Command("ibv_devinfo"), File("proc/meminfo"), Call("pci")]
    recorded = RecordedNode(GOOD)
    at_once = most = 0
    lock = threading.Lock()

    def run(command: Command, timeout: float) -> Reading:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(timeout if command == hangs else 0.01)
        with lock:
            at_once -= 1
        return Reading(command.key, "timeout") if command == hangs else recorded.read(command)[0]

    def read(run: Runner | None) -> tuple[float, dict[str, Reading]]:
        started = time.monotonic()
        facts = read_node("", GOOD, wanted, time.monotonic() + 2, run)
        return time.monotonic() - started, facts.readings

    _, plain = read(None)
    took, found = read(run)
    assert set(found) == set(plain)
    assert [key for key in plain if found[key] != plain[key]] == [hangs.key]
    assert found[hangs.key].status == "timeout"
    assert most == COMMANDS_AT_ONCE
    assert took < 2 + 5, "the others did not wait for the one that hangs"
