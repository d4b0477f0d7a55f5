"""Nodes over ssh, played: a program called ``ssh`` on PATH hands each connection to a node that the test makes up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cwai_bench import __version__, journal
from cwai_bench.errors import UsageError
from cwai_bench.launch import answer, dialog, door, parcel, ssh, wire
from cwai_bench.launch.order import Order, Outcome
from cwai_bench.model import Facts, FactsRecord, Plan
from cwai_bench.text import Text

CHECKS = ["memory.installed", "kernel.version", "same.kernel"]

# Its first line from the test says whether it plays along: {"stderr": …, "exit": …, "talk": …}.
PLAYED = """#!{python} -IS
import json, os, select, socket, subprocess, sys, time
host = sys.argv[sys.argv.index("--") + 1]
s = socket.socket(socket.AF_UNIX); s.connect(os.environ["PLAYED_SSH"])
s.sendall((json.dumps([host, *sys.argv[1:]]) + "\\n").encode())
head = b""
while not head.endswith(b"\\n"):
    head += s.recv(1)
play = json.loads(head)
time.sleep(play.get("later", 0))
if play.get("leaves"):  # it ends while it asks
    subprocess.Popen([os.environ["SSH_ASKPASS"], play["leaves"]], stdout=subprocess.DEVNULL)
    time.sleep(0.5); os._exit(255)
for question in play.get("asks", []):
    words = [os.environ["SSH_ASKPASS"], question]
    if play.get("jump"):  # an ssh of ssh asks
        words = ["sh", "-c", 'sh "$@"; exit $?', "sh", *words]
    asked = subprocess.run(words, capture_output=True)
    s.sendall((json.dumps([asked.returncode, asked.stdout.decode()]) + "\\n").encode())
sys.stderr.write(play.get("stderr", "")); sys.stderr.flush()
while play.get("talk"):
    ready, _, _ = select.select([0, s] if play["talk"] != "deaf" else [s], [], [])
    if 0 in ready:
        data = os.read(0, 65536)
        if not data:
            play["talk"] = "deaf"; s.shutdown(socket.SHUT_WR); continue
        s.sendall(data)
    if s in ready:
        data = s.recv(65536)
        if not data:
            break
        os.write(1, data)
os._exit(play.get("exit", 0))
"""

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Cluster:
    """What each node does: ``plays`` by name, the others answer. ``sent``: bytes by node. ``called``: command lines."""

    def __init__(self, folder: Path, facts: Facts) -> None:
        self.facts = facts
        self.folder = folder
        self.plays: dict[str, dict[str, Any] | Play] = {}
        self.heads: dict[str, dict[str, Any]] = {}
        self.sent: dict[str, int] = {}
        self.called: dict[str, list[str]] = {}
        self.at_once = self.most_at_once = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(folder / "s")), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    async def _serve(self, path: Path) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with await asyncio.start_unix_server(self._connected, path=path):
            self._ready.set()
            await self._over.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name, *argv = json.loads(await reader.readline())
        self.called[name] = argv
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            play = self.plays.get(name, self.node(name))
            head = play if isinstance(play, dict) else self.heads.get(name, {"talk": True})
            writer.write(json.dumps(head).encode() + b"\n")
            if callable(play):
                with contextlib.suppress(ConnectionError, answer.HungUpError, asyncio.IncompleteReadError):
                    await play(reader, writer)
        finally:
            self.at_once -= 1
            writer.close()

    def node(self, name: str, *, noise: bytes = b"", version: str = __version__, facts: Facts | None = None) -> Play:
        """A node as it should be."""

        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            def counted(data: bytes) -> None:
                self.sent[name] = self.sent.get(name, 0) + len(data)
                write(data)

            write, writer.write = writer.write, counted  # type: ignore[method-assign]
            writer.write(noise + dialog.MARK)
            uplink = answer.Uplink(wire.Line(reader, writer))
            listening = asyncio.ensure_future(uplink.listen())
            await uplink.say(dialog.Ready(version))
            ask = await uplink.hear()
            assert isinstance(ask, dialog.Ask)
            mine = msgspec.json.encode(FactsRecord(msgspec.structs.replace(facts or self.facts, node="what-it-says")))
            (line,), texts = parcel.pack([mine])
            await uplink.answered(dialog.Facts(ask.node, [msgspec.Raw(line)], {"python": "3\x1b[31m"}), texts)
            await uplink.say(dialog.Done())
            await listening

        return play

    def check(self, nodes: list[str], *, password: str | None = None, **ways: Any) -> Outcome:
        order = Order("check", ["cwai-bench"], str(self.folder / "store"), "en", [], with_report=True)
        plan = Plan(CHECKS, [], [], 1.0)
        return ssh.collect(order, plan, nodes, [], dialog.Ways(**ways), Quiet(), password)


class Quiet:
    def plan(self, plan: Plan, run_id: str, size: int, nodes: int) -> None: ...
    def answered(self, done: int, total: int, late: Text | None) -> None: ...
    def say(self, text: Text) -> None: ...


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good_facts: Facts) -> Iterator[Cluster]:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ssh"
    program.write_text(PLAYED.replace("{python}", sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PLAYED_SSH", str(tmp_path / "s"))
    monkeypatch.setenv("CWAI_BENCH_SPOOL", str(tmp_path / "spool"))
    played = Cluster(tmp_path, good_facts)
    yield played
    played.close()


def report_of(outcome: Outcome) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(outcome.report)
    return report


def absent(outcome: Outcome) -> dict[str, tuple[str, str]]:
    return {
        node: (v["reason_code"], v["detail"]["en"])
        for v in report_of(outcome)["verdicts"]
        if v["check"] == "run.nodes" and v["status"] == "UNKNOWN"
        for node in v["nodes"]
    }


async def gibberish(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(dialog.MARK + b"\0\0\0\x05hello")
    await writer.drain()


def garbles(payload: bytes) -> Play:
    """A frame that holds ``payload`` in place of facts."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(dialog.MARK)
        line = wire.Line(reader, writer)
        await line.send(dialog.Ready(__version__))
        await line.receive(dialog.to_node)
        writer.write(wire.frame(zlib.compress(payload)))
        await reader.read()

    return play


DEEP = b"[" * 50_000 + b"]" * 50_000


async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    line = wire.Line(reader, writer)
    writer.write(dialog.MARK)
    await line.send(dialog.Ready(__version__))
    await line.receive(dialog.to_node)


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


def says(*messages: Any) -> Play:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = wire.Line(reader, writer)
        writer.write(dialog.MARK)
        await line.send(dialog.Ready(__version__))
        await line.receive(dialog.to_node)
        for message in messages:
            await line.send(message)
        await reader.read()

    return play


def ends(code: int, stderr: str) -> dict[str, Any]:
    return {"exit": code, "stderr": stderr}


FAILURES: dict[str, tuple[dict[str, Any] | Play, str, str]] = {
    "nameless": (
        ends(255, "ssh: Could not resolve hostname nameless: Name or service not known\n"),
        "node_lost",
        "name has no address",
    ),
    "refused": (
        ends(255, "ssh: connect to host refused port 22: Connection refused\n"),
        "node_lost",
        "no sshd answers on that port",
    ),
    "far": (ends(255, "ssh: connect to host far port 22: Connection timed out\n"), "node_lost", "cannot be reached"),
    "locked": (
        ends(255, "root@locked: Permission denied (publickey,password).\n"),
        "permission",
        "install a key there, or --ask-password",
    ),
    "stranger": (ends(255, "Host key verification failed.\n"), "error", "host key is not known here"),
    "changed": (
        ends(
            255,
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\n" + "x\n" * 500 + "Host key verification failed.\n",
        ),
        "error",
        "another than the known one",
    ),
    "full": (
        ends(255, "kex_exchange_identification: Connection closed by remote host\n"),
        "node_lost",
        "MaxStartups",
    ),
    "odd": (ends(255, "something new\x1b[2J\n"), "node_lost", "[something new?[2J]"),
    "bare": (ends(127, "sh: 1: exec: cwai-bench: not found\n"), "missing_tool", "--remote-command"),
    "older": (ends(2, "cwai-bench: unknown command 'answer'\n"), "unsupported", "install the same one"),
    "talker": (ends(0, ""), "error", "no answer of cwai-bench (exit code 0)"),
    "gibberish": (gibberish, "error", "makes no sense"),
    "endless": (endless, "error", "more than 64 KiB before it spoke"),
    "dies": (dies, "node_lost", "ended in the middle of its answer"),
    "silent": (silent, "timeout", "no answer within 5 s: it had not begun"),
    "stuck": (says(), "timeout", "no answer within 5 s: cwai-bench was at work"),
    "busy": (says(dialog.Lost("busy", "busy", Text("held by run r\x07", "占用"))), "busy", "held by run r?"),
    "liar": (says(dialog.Lost("n1", "error", Text("not I", "非我"))), "error", "of which it was not asked"),
    "empty": (says(dialog.Facts("empty", [msgspec.Raw(b'{"type":"facts"}')], {})), "error", "makes no sense"),
    "false": (says(dialog.Facts("false", [msgspec.Raw(b'{"type":"end"}')], {})), "error", "makes no sense"),
    "latin": (garbles(b'{"type":"lost","node":"\xff"}'), "error", "makes no sense"),
    "abyss": (garbles(b'{"type":"done","more":' + DEEP + b"}"), "error", "makes no sense"),
    "garbled": (
        says(dialog.Facts("garbled", [msgspec.Raw(b'{"type":"facts","facts":{"node":"\xff"}}')], {})),
        "error",
        "makes no sense",
    ),
    "early": (says(dialog.Done()), "node_lost", "ended in the middle"),
}


def test_each_failure_is_its_node_s_own(cluster: Cluster) -> None:
    """64 good nodes, and one of each kind that is not."""
    cluster.plays |= {name: play for name, (play, _, _) in FAILURES.items()}
    cluster.plays["other"] = cluster.node("other", version="0.0.1")
    cluster.plays["n7"] = cluster.node("n7", noise=b"Welcome!\n\xff\0" + b"-" * 9000 + b"\nno newline")
    good = [f"n{i}" for i in range(1, 65)]
    outcome = cluster.check([*good, *FAILURES, "other"], seconds=5.0)
    found = absent(outcome)
    for name, (_, code, said) in FAILURES.items():
        assert found[name][0] == code, (name, found[name])
        assert said in found[name][1], (name, found[name])
    assert found["other"] == (
        "unsupported",
        f"it has cwai-bench 0.0.1, this is {__version__}; install the same version there",
    )
    assert set(found) == {*FAILURES, "other"}
    assert outcome.exit_code == 3
    report = report_of(outcome)
    assert [n["name"] for n in report["nodes"] if n["present"]] == good
    memory = {n: v["status"] for v in report["verdicts"] if v["check"] == "memory.installed" for n in v["nodes"]}
    assert memory == dict.fromkeys(good, "PASS") | dict.fromkeys(found, "UNKNOWN")
    assert set(outcome.leave_out) == {name for name, (code, _) in found.items() if code == "node_lost"}
    assert len(report["gate"]["because"]) == 1, "that a node said nothing is said once, not for each item"
    assert report["environment"]["python"] == "3?[31m"
    assert not list((cluster.folder / "spool").glob("*"))
    assert cluster.most_at_once <= 64

    # the run as it was saved gives the same report
    run = journal.merge(journal.read_folder(Path(outcome.folder)))
    assert {n.name: n.reason_code for n in run.nodes if not n.present} == {n: code for n, (code, _) in found.items()}


def test_a_bug_of_ours_costs_the_one_node(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    take, taken = ssh.Collector._take, []

    async def taking(self: ssh.Collector, line: wire.Line, facts: dialog.Facts) -> None:
        if facts.node == "n1":
            raise ZeroDivisionError("so it is")
        taken.append(facts.node)
        await take(self, line, facts)

    monkeypatch.setattr(ssh.Collector, "_take", taking)
    outcome = cluster.check(["n1", "n2", "n3"])
    ((name, (code, said)),) = absent(outcome).items()
    assert (name, code, sorted(taken)) == ("n1", "error", ["n2", "n3"])
    assert "ZeroDivisionError: so it is" in said


def test_with_no_node_there_is_a_report_and_no_verdict(cluster: Cluster) -> None:
    cluster.plays = dict.fromkeys(("a", "b"), FAILURES["far"][0])
    outcome = cluster.check(["a", "b"])
    assert outcome.exit_code == 3
    assert set(absent(outcome)) == {"a", "b"}
    assert Path(outcome.html).exists()


def test_fanout_is_kept_to(cluster: Cluster) -> None:
    def slowly(node: Play) -> Play:
        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.3)
            await node(reader, writer)

        return play

    nodes = [f"n{i}" for i in range(9)]
    cluster.plays |= {name: slowly(cluster.node(name)) for name in nodes}
    assert cluster.check(nodes, fanout=3).exit_code == 0
    assert cluster.most_at_once == 3


def test_what_like_nodes_read_alike_travels_once(cluster: Cluster, good_facts: Facts) -> None:
    nodes = [f"n{i}" for i in range(32)]
    for i, node in enumerate(nodes):
        readings = dict(good_facts.readings)
        load = msgspec.structs.replace(readings["proc/loadavg"], text=f"{i}.00 1.00 1.00 1/2 3\n")
        memory = readings["proc/meminfo"]
        memory = msgspec.structs.replace(memory, text=memory.text.replace("MemFree:", f"MemFree: {i}"))
        facts = msgspec.structs.replace(good_facts, readings=readings | {"proc/loadavg": load, "proc/meminfo": memory})
        cluster.plays[node] = cluster.node(node, facts=facts)
    assert cluster.check(nodes).exit_code == 0
    costs = sorted(cluster.sent.values())
    assert sum(cost > 20_000 for cost in costs) == 1, costs
    assert costs[len(costs) // 2] < 10_000


def test_a_slow_node_does_not_hold_up_those_that_have_the_same_texts(cluster: Cluster) -> None:
    """It is asked for the texts first and never sends them: the others are asked after five seconds, or when it is
    given up."""
    (line,), _ = parcel.pack([msgspec.json.encode(FactsRecord(cluster.facts))])
    cluster.plays["slow"] = says(dialog.Facts("slow", [msgspec.Raw(line)], {}))
    first = cluster.node("n1")

    async def later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)
        await first(reader, writer)

    cluster.plays["n1"] = later
    outcome = cluster.check(["slow", "n1"], seconds=3.0)
    assert {name: code for name, (code, _) in absent(outcome).items()} == {"slow": "timeout"}


def test_an_interrupt_ends_the_connections_and_the_report_has_what_had_come(cluster: Cluster) -> None:
    cluster.plays |= {"slow1": says(), "slow2": silent}
    waiting = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM))
    waiting.start()
    started = time.monotonic()
    outcome = cluster.check(["n1", "slow1", "slow2"], seconds=60.0)
    assert time.monotonic() - started < 8
    assert outcome.exit_code == 143
    assert {name: code for name, (code, _) in absent(outcome).items()} == {"slow1": "aborted", "slow2": "aborted"}
    assert outcome.leave_out == []
    assert report_of(outcome)["settings"]["interrupted"] == signal.SIGTERM


def test_host_keys_are_never_waived_and_no_terminal_is_asked(cluster: Cluster) -> None:
    assert cluster.check(["n1"], user="ops", options=["Port=2222"], command="sudo -n cwai-bench").exit_code == 0
    argv = cluster.called["n1"]
    assert argv[1] == "-oPort=2222", "the person's options come first"
    assert "-oBatchMode=yes" in argv
    assert not [word for word in argv if "StrictHostKey" in word or "KnownHosts" in word]
    assert argv[-4:] == ["ops", "--", "n1", "sudo -n cwai-bench answer"]
    assert ssh.remote_command("").startswith("exec sh -c 'if [ -x ")


def test_without_an_ssh_nothing_is_started(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="no ssh on this machine"):
        cluster.check(["n1"])


# ------------------------------------------------------------------------------------------------------- the door

SECRET = "correct horse"


def asking(cluster: Cluster, name: str, *questions: str, then: bool, heard: dict[str, list[Any]]) -> None:
    """Make ``name`` ask before it answers, or is refused."""
    node = cluster.node(name)

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in questions:
            told = await reader.readline()
            if not told:  # it was ended
                return
            heard.setdefault(name, []).append(json.loads(told))
        if then:
            await node(reader, writer)

    head = (
        {"talk": True, "asks": list(questions)}
        if then
        else {"asks": list(questions), **ends(255, "Permission denied (password).\n")}
    )
    cluster.plays[name], cluster.heads[name] = play, head


@pytest.mark.parametrize(
    "question",
    ["root@n1's password: ", "(root@n1) Password: ", "Password: ", "Password for root@n1:", "(root@n1) 密码："],
)
def test_a_question_for_a_password_is_answered_once_for_each_node(cluster: Cluster, question: str) -> None:
    core = resource.getrlimit(resource.RLIMIT_CORE)
    heard: dict[str, list[Any]] = {}
    for name in ("n1", "n2", "n3"):
        asking(cluster, name, question, then=True, heard=heard)
    assert cluster.check(["n1", "n2", "n3"], password=SECRET).exit_code == 0
    assert heard == {name: [[0, SECRET + "\n"]] for name in ("n1", "n2", "n3")}
    assert "-oNumberOfPasswordPrompts=1" in cluster.called["n1"]
    assert resource.getrlimit(resource.RLIMIT_CORE) == core


@pytest.mark.parametrize(
    "question",
    [
        "Enter passphrase for key '/root/.ssh/id_ed25519': ",
        "The authenticity of host 'n1' can't be established.\nAre you sure you want to continue (yes/no)? ",
        "Verification code: ",
        "New password: ",
        "Retype new password: ",
        "Your password has expired. Current password: ",
    ],
)
def test_other_questions_are_not(cluster: Cluster, question: str) -> None:
    heard: dict[str, list[Any]] = {}
    asking(cluster, "n1", question, then=False, heard=heard)
    code, why = absent(cluster.check(["n1"], password=SECRET))["n1"]
    assert heard == {"n1": [[1, ""]]}
    assert code == "permission"
    assert "only a question for a password is answered" in why


def test_a_refused_password_is_not_tried_everywhere(cluster: Cluster) -> None:
    heard: dict[str, list[Any]] = {}
    nodes = [f"n{i}" for i in range(40)]
    for name in nodes:
        asking(cluster, name, f"root@{name}'s password: ", then=False, heard=heard)
    found = absent(cluster.check(nodes, password=SECRET))
    assert {code for code, _ in found.values()} == {"permission"}
    assert [answers for answers in heard.values() if answers != [[1, ""]]] == [[[0, SECRET + "\n"]]] * 2
    assert sum("not tried here" in why for _, why in found.values()) == 38


def hanging(cluster: Cluster, name: str) -> None:
    """Make ``name`` ask, and then say no more."""

    async def play(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    cluster.plays[name], cluster.heads[name] = play, {"talk": True, "asks": [f"root@{name}'s password: "]}


def test_a_login_that_hangs_holds_nobody_up(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "TRIAL_SECONDS", 0.5)
    heard: dict[str, list[Any]] = {}
    hanging(cluster, "n1")
    for name in ("n2", "n3"):
        asking(cluster, name, f"root@{name}'s password: ", then=True, heard=heard)
        cluster.heads[name]["later"] = 1.0
    found = absent(cluster.check(["n1", "n2", "n3"], password=SECRET, seconds=8.0))
    assert {node: code for node, (code, _) in found.items()} == {"n1": "timeout"}


def test_an_ssh_that_has_ended_is_no_trial(cluster: Cluster) -> None:
    """n2 leaves while it waits for what comes of n1: when n1 is given up it is the turn of n3."""
    heard: dict[str, list[Any]] = {}
    hanging(cluster, "n1")
    cluster.plays["n2"] = {"later": 1.0, "leaves": "root@n2's password: "}
    for name in ("n3", "n4"):
        asking(cluster, name, f"root@{name}'s password: ", then=True, heard=heard)
    found = absent(cluster.check(["n1", "n2", "n3", "n4"], password=SECRET, seconds=4.0, fanout=2))
    assert {node: code for node, (code, _) in found.items()} == {"n1": "timeout", "n2": "node_lost"}


def test_a_second_question_means_that_it_was_wrong(cluster: Cluster) -> None:
    """PAM asks, refuses, and then sshd itself asks: the password is not given twice to one node."""
    heard: dict[str, list[Any]] = {}
    asking(cluster, "n1", "(root@n1) Password: ", "root@n1's password: ", then=True, heard=heard)
    code, why = absent(cluster.check(["n1"], password=SECRET))["n1"]
    assert (code, why) == ("permission", "the password was refused")
    assert heard["n1"][0] == [0, SECRET + "\n"]
    assert len(heard["n1"]) == 1


def test_a_jump_host_does_not_get_the_nodes_password(cluster: Cluster) -> None:
    heard: dict[str, list[Any]] = {}
    asking(cluster, "n1", "root@jump's password: ", then=False, heard=heard)
    cluster.heads["n1"]["jump"] = True
    code, why = absent(cluster.check(["n1"], password=SECRET))["n1"]
    assert (code, heard) == ("permission", {})
    assert "a jump host asks" in why


def test_a_stranger_is_told_nothing(tmp_path: Path) -> None:
    """A process of this user, but none that an ssh of ours has started."""
    from cwai_bench.launch.door import Door

    async def ask() -> bytes:
        async with Door(SECRET) as door:
            reader, writer = await asyncio.open_unix_connection(door.environ["CWAI_BENCH_DOOR"])
            writer.write(b"Password: \0")
            with contextlib.suppress(ConnectionError):
                return await asyncio.wait_for(reader.read(), 5)
            return b""

    assert asyncio.run(ask()) == b""


# ------------------------------------------------------------------------------------------------ the command line


def cwai(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    store = ["--store", str(cluster.folder / "store"), "--lang", "en"]
    before, _, after = " ".join(arguments).partition(" -- ")
    command = [sys.executable, "-m", "cwai_bench", *before.split(), *store, *(["--", *after.split()] if after else [])]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_command_shows_the_verdict_and_names_the_absent(cluster: Cluster) -> None:
    cluster.plays["n2"] = FAILURES["far"][0]
    done = cwai(cluster, "check --ssh n[1-3] --items memory.installed")
    assert done.returncode == 3, done.stderr
    assert "3 node(s) over ssh" in done.stderr
    assert "n2: it cannot be reached [ssh: connect to host far port 22: Connection timed out]" in done.stdout


def test_a_front_that_is_killed_leaves_what_it_had(cluster: Cluster) -> None:
    cluster.plays["slow"] = silent
    command = ["check", "--ssh", "n1,slow", "--items", "memory.installed", "--store", str(cluster.folder / "store")]
    process = subprocess.Popen([sys.executable, "-m", "cwai_bench", *command], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (found := list((cluster.folder / "spool").glob("*/n1-0.jsonl"))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    done = cwai(cluster, f"report {found[0].parent.name}")
    assert done.returncode == 3, done.stderr
    assert "slow: the run was killed before it answered" in done.stdout


def test_a_gate_over_ssh_starts_its_command_here(cluster: Cluster) -> None:
    done = cwai(cluster, "gate --ssh n1,n2 --items memory.installed -- echo started")
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr
    cluster.plays["n2"] = FAILURES["locked"][0]
    done = cwai(cluster, "gate --ssh n1,n2 --items memory.installed -- echo started")
    assert (done.returncode, done.stdout) == (3, "")
    assert "not started" in done.stderr


def test_options_come_from_a_config_file_too(cluster: Cluster) -> None:
    config = cluster.folder / "c.toml"
    config.write_text("[options]\nssh = 'n[1-2]'\nssh-user = 'ops'\nfanout = 1\nnode-timeout = '30s'\n")
    done = cwai(cluster, f"check --items memory.installed --config {config}")
    assert done.returncode == 0, done.stderr
    assert "ops" in cluster.called["n2"]
    # another command has none of these, and passes them over
    assert cwai(cluster, f"history list --config {config}").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("check --ssh n[1-", "--ssh 'n[1-'"),
        ("check --ssh @nosuchgroup", "nosuchgroup"),
        ("check --ssh=-oProxyCommand=x", "names no nodes"),
        ("check --ssh n1 -np 2", "--ssh excludes -np"),
        ("check --ssh n1 --hosts n1", "--ssh excludes --hosts"),
        ("check --ssh n1 --root /", "--ssh excludes --root"),
        ("check --fanout 3", "--fanout belongs to --ssh"),
        ("check --ask-password", "--ask-password belongs to --ssh"),
        ("check --ssh n1 --gateways g1 --ask-password", "does not leave this machine"),
        ("check --ssh n1 --baseline n2", "none of the nodes of --ssh"),
        ("check --ssh n1 --items nosuch", "unknown item"),
        ("check --ssh n1 --from last", "--from reads no node"),
        ("run --ssh n1", "unknown argument --ssh"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_started(cluster: Cluster, arguments: str, said: str) -> None:
    done = cwai(cluster, arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert not cluster.called


def test_answer_is_for_ssh_alone() -> None:
    done = subprocess.run(
        ["script", "-qec", f"{sys.executable} -m cwai_bench answer", "/dev/null"],
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=30,
    )
    assert "is started by cwai-bench, over ssh" in done.stdout
