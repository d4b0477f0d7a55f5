"""The lab of several nodes itself: they are apart where machines are apart, and nothing of them stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab.nodes import ROOT, VENV, Lab, NodeDied, process_namespaces

pytestmark = pytest.mark.lab("sshd")


def host_links() -> set[str]:
    return {link.name for link in Path("/sys/class/net").iterdir()}


def test_each_node_has_its_own_name_address_files_and_processes(two_nodes: Lab) -> None:
    one, two = two_nodes.nodes
    assert [two_nodes.run(node, ["hostname"]).stdout for node in (one, two)] == ["node1\n", "node2\n"]
    assert "10.77.0.2/24" in two_nodes.run(two, ["ip", "-brief", "address", "show", "eth0"]).stdout
    marks = [f"{folder}/lab-mark" for folder in ("/tmp", "/var/tmp", "/run", "/dev/shm")]
    two_nodes.run(one, ["touch", *marks])
    assert two_nodes.run(one, ["ls", *marks]).returncode == 0
    assert two_nodes.run(two, ["ls", *marks]).stdout == ""
    assert not any(Path(mark).exists() for mark in marks)
    assert two_nodes.processes(one) == []
    sleeper = two_nodes.start(one, ["sleep", "60"])
    deadline = time.monotonic() + 10
    while two_nodes.processes(one) != ["sleep 60"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert two_nodes.processes(one) == ["sleep 60"]
    assert two_nodes.processes(two) == []
    os.killpg(sleeper.pid, signal.SIGKILL)
    sleeper.communicate()


def test_nodes_share_the_repository_and_the_folder_of_the_lab(two_nodes: Lab) -> None:
    one, two = two_nodes.nodes
    two_nodes.run(one, ["touch", two_nodes.folder / "from-node1"])
    assert two_nodes.run(two, ["ls", two_nodes.folder / "from-node1", ROOT / "pyproject.toml"]).returncode == 0
    assert (two_nodes.folder / "from-node1").exists()


def test_plain_ssh_works_between_nodes_by_name_and_address(two_nodes: Lab) -> None:
    one, two = two_nodes.nodes
    for target in (two.name, two.address):
        done = two_nodes.run(one, ["ssh", target, "hostname; echo $HOME"])
        assert (done.returncode, done.stdout) == (0, "node2\n/tmp/home\n"), done.stderr


def test_mpirun_reaches_both_nodes(two_nodes: Lab) -> None:
    hello = (
        "from mpi4py import MPI; import socket; c = MPI.COMM_WORLD;"
        "print(c.gather((c.rank, socket.gethostname(), c.allreduce(c.rank + 1))) or '', end='')"
    )
    command = [*two_nodes.mpirun(), sys.executable, "-c", hello]
    done = two_nodes.run(two_nodes.nodes[0], command, timeout=90)
    assert (done.returncode, done.stdout) == (0, "[(0, 'node1', 3), (1, 'node2', 3)]"), done.stderr


def test_a_file_may_differ_on_one_node(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab", differs={"node2": {Path("/etc/os-release"): "NAME=Other\n"}}) as lab:
        one, two = lab.nodes
        assert lab.run(two, ["cat", "/etc/os-release"]).stdout == "NAME=Other\n"
        assert lab.run(one, ["cat", "/etc/os-release"]).stdout == Path("/etc/os-release").read_text()


def test_nothing_stays_behind(tmp_path: Path) -> None:
    before = host_links()
    with Lab(tmp_path / "lab") as lab:
        held = [node.pid for node in lab.nodes]
        namespace = Path(f"/proc/{held[0]}/ns/pid_for_children").readlink()
        # A process that left its group and its session, as a daemon would.
        lab.run(lab.nodes[0], ["setsid", "--fork", "sh", "-c", "exec sleep 300 >/dev/null 2>&1"])
        assert "sleep 300" in lab.processes(lab.nodes[0])
        assert host_links() == before
    assert not any(Path(f"/proc/{pid}").exists() for pid in held)
    assert namespace not in process_namespaces()
    assert host_links() == before


def test_all_goes_when_the_test_run_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tests.lab.nodes import Lab\n"
        f"lab = Lab(Path({str(tmp_path / 'lab')!r})); lab.__enter__()\n"
        "namespaces = [Path(f'/proc/{n.pid}/ns/pid_for_children').readlink() for n in lab.nodes]\n"
        "print(*namespaces, flush=True); time.sleep(300)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    namespaces = {Path(name) for name in owner.stdout.readline().split()}
    assert len(namespaces & process_namespaces()) == 2
    owner.kill()
    owner.communicate()
    deadline = time.monotonic() + 10
    while namespaces & process_namespaces() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not namespaces & process_namespaces()


def test_a_node_that_cannot_be_built_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    before = process_namespaces()
    name = "a-name-longer-than-the-kernel-allows" * 2
    lab = Lab(tmp_path / "lab")
    lab._names[1] = name
    with pytest.raises(NodeDied, match="too long"), lab:
        pytest.fail("it was built")
    assert process_namespaces() <= before


def test_a_command_that_hangs_is_ended_with_all_its_group(two_nodes: Lab) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        two_nodes.run(two_nodes.nodes[0], ["sh", "-c", "sleep 301 & sleep 302"], timeout=1)
    deadline = time.monotonic() + 10  # killed, they take a moment to be gone from a busy machine
    while two_nodes.processes(two_nodes.nodes[0]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert two_nodes.processes(two_nodes.nodes[0]) == []


def test_the_environment_of_the_tests_is_not_that_of_a_node(two_nodes: Lab) -> None:
    done = two_nodes.run(two_nodes.nodes[0], ["sh", "-c", "echo $HOME; command -v cwai-bench"], env={"EXTRA": "1"})
    assert done.stdout == f"/tmp/home\n{VENV}/bin/cwai-bench\n"
