"""The server check over ssh, on nodes with an sshd each: no MPI anywhere."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.lab.nodes import VENV, Lab, Node

pytestmark = [pytest.mark.lab("sshd")]

TOOL = str(VENV / "bin" / "cwai-bench")
HANGS = "#!/bin/sh\n[ $(hostname) = node2 ] || exit 9\ntrap '' TERM\nsleep 300 &\nwhile :; do sleep 300; done\n"
"""nvidia-smi in the lab: a driver that hangs on node2. It is given 20 s."""
PASSWORD = f"one {os.urandom(6).hex()}?shay"
PASSWORDS = "PasswordAuthentication yes\nPermitRootLogin yes\n"
BY_PASSWORD = ["--ask-password", "--ssh-user", "tester", "--ssh-option", "PubkeyAuthentication=no"]


def command(lab: Lab, nodes: str, *more: str, items: str = "kernel.*") -> list[str]:
    return [TOOL, "check", "--ssh", nodes, "--items", items, "--store", str(lab.folder / "store"), *more]


def report_of(lab: Lab) -> dict[str, Any]:
    (saved,) = (lab.folder / "store").glob("[0-9]*/report.json")
    report: dict[str, Any] = json.loads(saved.read_text())
    return report


def present(report: dict[str, Any]) -> list[str]:
    return [n["name"] for n in report["nodes"] if n["present"] and n["complete"]]


def absent(report: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Reason code and words of each node of which nothing came."""
    return {
        node: (v["reason_code"], v["detail"]["en"])
        for v in report["verdicts"]
        if v["check"] == "run.nodes" and v["status"] == "UNKNOWN"
        for node in v["nodes"]
    }


def assert_left_alone(lab: Lab, seconds: float = 5.0) -> None:
    """Nothing of ours runs on any node."""
    deadline = time.monotonic() + seconds
    while any(lab.processes(node) for node in lab.nodes) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [lab.processes(node) for node in lab.nodes] == [[] for _ in lab.nodes]


def until(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def test_nodes_answer_and_those_that_cannot_are_unknown_by_name(two_nodes: Lab) -> None:
    one, two = two_nodes.nodes
    folder = two_nodes.folder
    (folder / "node9").mkdir()
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", folder / "node9" / "key"], check=True)
    key = (folder / "node9" / "key.pub").read_text()
    # other names of node2: known by no key, by another one, without an address, at an address where nothing is
    for line in ("10.77.0.2 stranger changed", "10.77.0.9 gone", "10.77.0.2 shut"):
        with (folder / "hosts").open("a") as hosts:
            hosts.write(line + "\n")
    with (folder / "known_hosts").open("a") as known:
        known.write(f"changed {key}")
    with (folder / "ssh_config").open("a") as config:
        config.write("Host shut\n  Port 23\n")
    done = two_nodes.run(one, command(two_nodes, "node[1-2],stranger,changed,nameless,gone,shut"))
    assert done.returncode == 3, done.stderr
    report = report_of(two_nodes)
    assert (present(report), report["status"]) == (["node1", "node2"], "partial")
    found = absent(report)
    for node, code, said in (
        ("stranger", "error", "host key is not known here"),
        ("changed", "error", "another than the known one"),
        ("nameless", "node_lost", "name has no address"),
        ("gone", "node_lost", "No route to host"),
        ("shut", "node_lost", "Connection refused"),
    ):
        assert found[node][0] == code, found
        assert said in found[node][1], found
    assert len(found) == 5
    assert report["gate"]["leave_out"] == ["gone", "nameless", "shut"]
    kernels = [v for v in report["verdicts"] if v["check"].startswith("kernel.")]
    assert {node for v in kernels for node in v["nodes"]} >= {"node1", "node2"}
    assert "FAIL" not in {v["status"] for v in kernels}
    assert_left_alone(two_nodes)
    assert two_nodes.run(one, ["sh", "-c", "ls /var/tmp/cwai-bench-0"]).stdout == ""

    # judged again, the five are still unknown
    again = two_nodes.run(one, [TOOL, "report", report["run_id"], "--store", folder / "store"])
    assert again.returncode == 3
    assert absent(report_of(two_nodes)) == found


def test_a_busy_node_and_one_whose_command_is_missing(two_nodes: Lab) -> None:
    one, two = two_nodes.nodes
    holder = two_nodes.start(
        two,
        [
            str(VENV / "bin" / "python"),
            "-c",
            "import asyncio; from cwai_bench.launch import keeper\n"
            "async def hold():\n"
            "    async with await keeper.hold_node(lambda: 'another-run'): await asyncio.sleep(60)\n"
            "asyncio.run(hold())",
        ],
    )
    until(lambda: "@cwai-bench-node" in two_nodes.run(two, ["cat", "/proc/net/unix"]).stdout)
    done = two_nodes.run(one, command(two_nodes, "node[1-2]"))
    assert done.returncode == 3
    code, why = absent(report_of(two_nodes))["node2"]
    assert code == "busy"
    assert "another-run" in why
    os.killpg(holder.pid, signal.SIGKILL)
    holder.communicate()
    for saved in (two_nodes.folder / "store").iterdir():
        saved.rename(two_nodes.folder / saved.name)

    done = two_nodes.run(one, command(two_nodes, "node[1-2]", "--remote-command", "/nowhere/cwai-bench"))
    assert done.returncode == 3
    found = absent(report_of(two_nodes))
    assert set(found) == {"node1", "node2"}
    assert {code for code, _ in found.values()} == {"missing_tool"}
    assert "--remote-command" in found["node1"][1]


@pytest.mark.parametrize("more", [[], ["--gateways", "node1"]], ids=["directly", "through a gateway"])
def test_what_a_node_runs_ends_with_the_run(two_nodes: Lab, more: list[str]) -> None:
    """Ctrl-C while a command on a node hangs and ignores SIGTERM: a report of what had come, and nothing left."""
    one, two = two_nodes.nodes
    (two_nodes.folder / "nvidia-smi").write_text(HANGS)
    (two_nodes.folder / "nvidia-smi").chmod(0o755)
    there = ["--remote-command", f"env PATH={two_nodes.folder}:/usr/bin:/bin {TOOL}"]
    process = two_nodes.start(one, command(two_nodes, "node[1-2]", *there, *more, items="kernel.*,nvidia.*"))
    until(lambda: any("sleep 300" in line for line in two_nodes.processes(two)))
    until(lambda: "node1-0" in two_nodes.run(one, ["sh", "-c", "ls /var/tmp/cwai-bench-0/*"]).stdout)
    os.kill(inside(process.pid, "cwai-bench check"), signal.SIGINT)
    assert_left_alone(two_nodes)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    report = report_of(two_nodes)
    assert "SIGINT" in out
    assert present(report) == ["node1"]
    assert absent(report)["node2"][0] == "aborted"
    assert report["gate"]["leave_out"] == []


def test_scripts_run_where_the_nodes_are_and_end_with_the_run(two_nodes: Lab) -> None:
    """The criteria file and its scripts lie in the first node's own /tmp; the other node has no such files."""
    one, two = two_nodes.nodes
    table = '[script]\nall.file = "who.sh"\ntwo = { file = "who.sh", args = ["4"], nodes = "node2", exit.warn = [4] }\n'
    script = "#!/bin/sh\necho $CWAI_BENCH_NODE\nexit ${1:-0}\n"
    write = f"printf '%s' '{table}' >/tmp/my.toml; printf '%s' '{script}' >/tmp/who.sh"
    assert two_nodes.run(one, ["sh", "-c", write]).returncode == 0
    argv = command(two_nodes, "node[1-2]", "--criteria", "/tmp/my.toml", items="script.*")
    done = two_nodes.run(one, argv)
    assert done.returncode == 0, done.stderr
    report = report_of(two_nodes)
    found = {(v["check"], n): v["status"] for v in report["verdicts"] for n in v["nodes"]}
    assert found["script.all", "node1"] == found["script.all", "node2"] == "PASS"
    assert found["script.two", "node2"] == "WARN"
    assert found.get(("script.two", "node1"), "SKIP") == "SKIP"

    hangs = two_nodes.run(one, ["sed", "-i", "s/exit/sleep 300; exit/", "/tmp/who.sh"])
    assert hangs.returncode == 0
    process = two_nodes.start(one, argv)
    until(lambda: all(any("sleep 300" in line for line in two_nodes.processes(node)) for node in (one, two)))
    os.kill(inside(process.pid, "cwai-bench check"), signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert_left_alone(two_nodes)


def inside(pid: int, words: str) -> int:
    """The process below ``pid`` (seen from here) whose command line has ``words``."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            argv = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            group = os.getpgid(int(process.name))
        except OSError:
            continue
        if group == pid and words in argv and "nsenter" not in argv:
            return int(process.name)
    raise AssertionError(f"no {words} below {pid}")


def test_a_node_that_takes_too_long_is_given_up_alone(two_nodes: Lab) -> None:
    there = f"sh -c '[ $(hostname) = node1 ] || sleep 300; exec {TOOL} answer' cwai-bench"
    argv = command(two_nodes, "node[1-2]", "--node-timeout", "6", "--remote-command", there)
    done = two_nodes.run(two_nodes.nodes[0], argv)
    assert done.returncode == 3, done.stderr
    code, why = absent(report_of(two_nodes))["node2"]
    assert (code, "no answer within 6 s: it had not begun to answer" in why) == ("timeout", True)
    assert present(report_of(two_nodes)) == ["node1"]


def test_a_tree_of_two_levels_and_a_gateway_that_is_gone(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab", 3) as lab:
        done = lab.run(lab.nodes[0], command(lab, "node[1-3]", "--gateways", "node2"))
        assert done.returncode in (0, 3), done.stderr
        assert present(report_of(lab)) == ["node1", "node2", "node3"]
        came_from = [re.findall(r"Accepted \w+ for root from (\S+)", log(lab, node)) for node in lab.nodes]
        assert [set(found[1:]) for found in came_from] == [{"10.77.0.2"}, {"10.77.0.1", "10.77.0.2"}, {"10.77.0.2"}]
        assert_left_alone(lab)
        for saved in (lab.folder / "store").iterdir():
            saved.rename(lab.folder / saved.name)

        lab.lose(lab.nodes[1])
        quick = ["--ssh-option", "ConnectTimeout=2"]
        done = lab.run(lab.nodes[0], command(lab, "node[1-3]", "--gateways", "node2", *quick))
        assert done.returncode == 3, done.stderr
        assert "asked directly" in done.stderr
        assert present(report_of(lab)) == ["node1", "node3"]
        assert absent(report_of(lab))["node2"][0] == "node_lost"


def log(lab: Lab, node: Node) -> str:
    return (lab.folder / f"{node.name}.log").read_text(errors="replace")


# ------------------------------------------------------------------------------------------------------- passwords


def with_passwords(tmp_path: Path, words: Sequence[str]) -> Lab:
    """A node for each of ``words``, which is the password of a user ``tester`` there."""
    differs = {}
    for number, word in enumerate(words, 1):
        hashed = subprocess.run(
            ["openssl", "passwd", "-6", "-stdin"], input=word, capture_output=True, text=True, check=True
        ).stdout.strip()
        differs[f"node{number}"] = {
            Path("/etc/passwd"): Path("/etc/passwd").read_text() + "tester:x:0:0::/tmp/home:/bin/sh\n",
            Path("/etc/shadow"): Path("/etc/shadow").read_text() + f"tester:{hashed}:20000:0:99999:7:::\n",
        }
    return Lab(tmp_path / "lab", len(words), differs, sshd=PASSWORDS)


def typed(lab: Lab, argv: Sequence[str], password: str) -> tuple[subprocess.CompletedProcess[str], int]:
    """Run ``argv`` on node1 with a terminal, and type ``password`` when asked. How often processes were looked at."""
    person, terminal = pty.openpty()
    clean = {"PATH": f"{VENV}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp/home", "LANG": "C.UTF-8"}
    enter = lab.enter(lab.nodes[0])
    process = subprocess.Popen(
        [*enter, "setsid", "--ctty", *argv],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean,
        cwd="/",
    )
    os.close(terminal)
    asked = b""
    while not asked.endswith(b": "):
        asked += os.read(person, 1024)
    os.write(person, password.encode() + b"\n")
    looks = 0
    while process.poll() is None:
        assert password not in said_by_processes()
        looks += 1
    out, err = process.communicate(timeout=60)
    os.close(person)
    return subprocess.CompletedProcess(list(argv), process.returncode, out, err), looks


def said_by_processes() -> str:
    """Command line and environment of all processes, as one text."""
    parts = []
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                parts.append((process / name).read_bytes().decode(errors="replace"))
            except OSError:
                continue
    return "\n".join(parts)


def assert_nowhere(lab: Lab, password: str) -> None:
    for path in lab.folder.rglob("*"):
        if path.is_file():
            assert password.encode() not in path.read_bytes(), path
    for node in lab.nodes:
        found = lab.run(node, ["grep", "-rlF", password, "/tmp", "/var/tmp", "/run", "/dev/shm"])
        assert found.stdout == "", found.stdout


def test_a_password_is_asked_once_and_stays_nowhere(tmp_path: Path) -> None:
    with with_passwords(tmp_path, [PASSWORD, PASSWORD, "another"]) as lab:
        argv = command(lab, "node[1-3]", *BY_PASSWORD)
        done, looks = typed(lab, argv, PASSWORD)
        assert done.returncode == 3, done.stderr
        assert looks > 10
        report = report_of(lab)
        assert present(report) == ["node1", "node2"]
        code, why = absent(report)["node3"]
        assert (code, "refused" in why or "Permission denied" in why) == ("permission", True)
        for node in lab.nodes[:2]:
            assert log(lab, node).count("Accepted password for tester") == 1
        assert PASSWORD not in done.stdout + done.stderr
        assert_nowhere(lab, PASSWORD)
        assert_left_alone(lab)
        assert [
            p for p in lab.run(lab.nodes[0], ["ls", "-A", "/tmp", "/var/tmp"]).stdout.split() if "cwai-a" in p
        ] == []


def test_a_wrong_password_is_tried_twice_in_all(tmp_path: Path) -> None:
    with with_passwords(tmp_path, [PASSWORD] * 3) as lab:
        done, _ = typed(lab, command(lab, "node[1-3]", *BY_PASSWORD), "wrong-Horse")
        assert done.returncode == 3, done.stderr
        found = absent(report_of(lab))
        assert set(found) == {"node1", "node2", "node3"}
        assert {code for code, _ in found.values()} == {"permission"}
        assert sum(log(lab, node).count("Failed password") for node in lab.nodes) == 2
        assert sum("was not tried here" in why for _, why in found.values()) == 1


def test_without_a_terminal_no_password_is_asked(two_nodes: Lab) -> None:
    done = two_nodes.run(two_nodes.nodes[0], command(two_nodes, "node[1-2]", "--ask-password"))
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr
