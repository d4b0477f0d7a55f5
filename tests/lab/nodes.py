"""Several nodes on one machine, each as separate as a container: the cluster that the lab tests run on.

A node is a process with namespaces of its own (network, host name, mounts, processes, IPC), an sshd as its first
process, and one veth into a bridge that lives in a namespace of its own too. Nothing touches the machine's own network,
names or files, and nothing has a name that could be left behind: all of it hangs on processes that die with this one,
even when this one is killed. Nodes share the repository and the lab's folder, as over a shared file system; ``/tmp``,
``/var/tmp``, ``/run``, ``/dev/shm`` and the home folder are each node's own. On a node, plain ``ssh node2`` works.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
VENV = Path(sys.prefix)
SETUP_DEADLINE = 30.0
HOME = "/tmp/home"

# The first process of a node. Folders that all nodes share may lie under /tmp or /var/tmp, so a bind elsewhere holds
# them while those change. $1: the lab's folder, $2: name of the node, then the folders to share.
NODE_INIT = r"""
set -eu
lab=$1 name=$2; shift 2
hostname "$name"
mount --make-rprivate /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run; mkdir -p /run/sshd /run/lock
i=0
for folder; do i=$((i + 1)); mkdir -p "/run/hold/$i"; mount --bind "$folder" "/run/hold/$i"; done
for own in /tmp /var/tmp; do mount -t tmpfs tmpfs "$own"; chmod 1777 "$own"; done
i=0
for folder; do i=$((i + 1)); mkdir -p "$folder"; mount --move "/run/hold/$i" "$folder"; done
rm -r /run/hold
mount -t tmpfs tmpfs /dev/shm; chmod 1777 /dev/shm
mkdir -p /tmp/home
mount --bind "$lab/hosts" /etc/hosts
mount --bind "$lab/ssh_config" /etc/ssh/ssh_config
while read -r source target; do mount --bind "$source" "$target"; done <"$lab/$name/binds"
ip link set lo up
: >"$lab/$name/mounted"
while ! [ -e /sys/class/net/eth0 ] || ! [ -e "$lab/$name/connected" ]; do sleep 0.05; done
exec /usr/sbin/sshd -D -e -f "$lab/$name/sshd_config"
"""


@dataclass(frozen=True)
class Node:
    """``pid`` is the process that holds the namespaces, seen from outside."""

    name: str
    address: str
    pid: int


class NodeDied(AssertionError):
    """A node's first process ended while the lab was being set up; carries what it said."""


class Lab:
    """``count`` nodes ``node1``, ``node2``, … at 10.77.0.1, 10.77.0.2, …; use it in a ``with``.

    ``differs`` makes nodes differ: for the name of a node, files on that node and the text they have there instead.
    ``folder`` (outside the repository) is visible on all nodes under the same path. ``sshd``: lines of sshd_config(5)
    for all nodes, before those that they have anyway: the first value counts.
    """

    def __init__(
        self,
        folder: Path,
        count: int = 2,
        differs: Mapping[str, Mapping[Path, str]] | None = None,
        sshd: str = "",
    ) -> None:
        self.folder = folder.resolve()
        self._sshd = sshd
        self.nodes: list[Node] = []
        self._names = [f"node{i + 1}" for i in range(count)]
        self._differs = differs or {}
        self._live = ExitStack()

    def __enter__(self) -> Lab:
        try:
            self._build()
        except BaseException:
            self._live.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.close()

    def run(
        self, node: Node, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run ``argv`` on ``node`` and wait; raises subprocess.TimeoutExpired, with the whole process group ended."""
        process = self.start(node, argv, env=env)
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise subprocess.TimeoutExpired(list(map(str, argv)), timeout, out, err) from None
            raise
        return subprocess.CompletedProcess(list(argv), process.returncode, out, err)

    def start(
        self, node: Node, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start ``argv`` on ``node``, in a process group of its own, with pipes; it ends with the lab at the latest."""
        clean = {"PATH": f"{VENV}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": HOME, "LANG": "C.UTF-8"}
        process = subprocess.Popen(
            [*self.enter(node), *argv],
            env={**clean, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._live.callback(_end, process)
        return process

    def enter(self, node: Node) -> list[str]:
        """What goes before a command that shall run on ``node``, for those who start it by themselves."""
        return _enter(node.pid)

    def mpirun(self, per_node: int = 1) -> list[str]:
        """The start of an ``mpirun`` command over all nodes, to be run on one of them.

        Every node sees the same two or so real cores, so ranks are not bound and yield to each other.
        """
        hosts = ",".join(f"{node.address}:{per_node}" for node in self.nodes)
        start = [str(VENV / "bin" / "mpirun"), "--allow-run-as-root", "--prefix", str(VENV)]
        total = str(per_node * len(self.nodes))
        return [*start, "-H", hosts, "-np", total, "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"]

    def lose(self, node: Node) -> None:
        """Take ``node`` away at once, as a loss of power would: nothing on it has time for a last word."""
        os.kill(node.pid, signal.SIGKILL)

    def processes(self, node: Node) -> list[str]:
        """Command lines of all that runs on ``node`` besides its sshd and the one that asks."""
        listing = self.run(node, ["ps", "-e", "-o", "pid=,args="])
        assert listing.returncode == 0, listing.stderr
        lines = (line.strip().split(maxsplit=1) for line in listing.stdout.splitlines())
        return [args for _pid, args in lines if "sshd" not in args and not args.startswith("ps -e ")]

    # ------------------------------------------------------------------------------------------- building

    def _build(self) -> None:
        self._write_common_files()
        switch = self._hold(["unshare", "--net", "sleep", "infinity"], "switch")
        self._wait_for("switch", switch, lambda: _network(switch.pid) != _network(os.getpid()))
        _ip(switch.pid, "link add br0 type bridge")
        _ip(switch.pid, "link set br0 up")
        for i, name in enumerate(self._names, start=1):
            self.nodes.append(self._build_node(name, f"10.77.0.{i}", switch.pid))
        for node in self.nodes:
            self._await_ssh(node)

    def _write_common_files(self) -> None:
        if self.folder.is_relative_to(ROOT) or ROOT.is_relative_to(self.folder):
            raise ValueError(f"the lab's folder {self.folder} must lie outside {ROOT}")
        self.folder.mkdir(parents=True, exist_ok=True)
        addresses = [(f"10.77.0.{i}", name) for i, name in enumerate(self._names, start=1)]
        hosts = ["127.0.0.1 localhost", *(f"{address} {name}" for address, name in addresses)]
        (self.folder / "hosts").write_text("\n".join(hosts) + "\n")
        _keygen(self.folder / "client_key")
        (self.folder / "authorized_keys").write_text((self.folder / "client_key.pub").read_text())
        known = []
        for address, name in addresses:
            own = self.folder / name
            own.mkdir()
            _keygen(own / "host_key")
            known.append(f"{name},{address} {(own / 'host_key.pub').read_text()}")
            binds = []
            for i, (target, text) in enumerate(self._differs.get(name, {}).items()):
                (own / f"file{i}").write_text(text)
                (own / f"file{i}").chmod(stat.S_IMODE(target.stat().st_mode))
                binds.append(f"{own}/file{i} {target}\n")
            (own / "binds").write_text("".join(binds))
            (own / "sshd_config").write_text(
                f"{self._sshd}ListenAddress {address}:22\nHostKey {own}/host_key\n"
                f"AuthorizedKeysFile {self.folder}/authorized_keys\n"
                "PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
                "UsePAM no\nStrictModes no\nUseDNS no\nPrintMotd no\nMaxStartups 64\n"
                # The home of every node's root is the machine's: keep its start-up files and state out of the tests.
                f"SetEnv HOME={HOME} PYTHONDONTWRITEBYTECODE=1\n"
            )
        (self.folder / "known_hosts").write_text("".join(known))
        (self.folder / "ssh_config").write_text(
            f"Host *\n  User root\n  IdentityFile {self.folder}/client_key\n  IdentitiesOnly yes\n  BatchMode yes\n"
            f"  StrictHostKeyChecking yes\n  GlobalKnownHostsFile {self.folder}/known_hosts\n"
            "  UserKnownHostsFile /dev/null\n  ConnectTimeout 10\n"
        )

    def _build_node(self, name: str, address: str, switch: int) -> Node:
        shared = [str(ROOT), str(self.folder)]
        apart = ["unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child=KILL"]
        holder = self._hold([*apart, "sh", "-c", NODE_INIT, "node-init", str(self.folder), name, *shared], name)
        self._wait_for(name, holder, (self.folder / name / "mounted").exists)
        _ip(switch, f"link add {name} type veth peer name eth0 netns {holder.pid}")
        _ip(switch, f"link set {name} master br0 up")
        _ip(holder.pid, f"addr add {address}/24 dev eth0")
        _ip(holder.pid, "link set eth0 up")
        (self.folder / name / "connected").touch()
        return Node(name, address, holder.pid)

    def _hold(self, argv: list[str], name: str) -> subprocess.Popen[bytes]:
        """Start a process on which namespaces hang. It dies with us, however we die, and takes all its own along."""
        log = (self.folder / f"{name}.log").open("wb")
        self._live.callback(log.close)
        own = Path("/proc/self/ns/pid").readlink()
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
        )

        def end() -> None:
            """Its children are killed by the kernel a moment after it: wait for them too."""
            children = Path(f"/proc/{process.pid}/ns/pid_for_children")
            namespace = children.readlink() if children.exists() else None
            process.kill()
            process.wait(timeout=SETUP_DEADLINE)
            deadline = time.monotonic() + SETUP_DEADLINE
            while namespace != own and namespace in process_namespaces():
                assert time.monotonic() < deadline, f"processes of {name} outlive it"
                time.sleep(0.01)

        self._live.callback(end)
        return process

    def _wait_for(self, name: str, holder: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SETUP_DEADLINE
        while not ready():
            if holder.poll() is not None or time.monotonic() > deadline:
                raise NodeDied(f"{name} did not come up; its log:\n{self._log(name)}")
            time.sleep(0.02)

    def _log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _await_ssh(self, node: Node) -> None:
        deadline = time.monotonic() + SETUP_DEADLINE
        while True:
            done = self.run(node, ["ssh", node.name, "hostname"])
            if done.returncode == 0 and done.stdout.strip() == node.name:
                return
            if time.monotonic() > deadline:
                raise NodeDied(f"no ssh to {node.name}: {done.stderr}\nits log:\n{self._log(node.name)}")
            time.sleep(0.1)


def _end(process: subprocess.Popen[str]) -> None:
    """A test that failed half-way has left it running, or its pipes open."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdout, process.stderr):
        assert pipe is not None
        pipe.close()


def process_namespaces() -> set[Path]:
    """The process namespaces in which something lives. Zombies, left to the machine's init to reap, do not."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.add((process / "ns" / "pid").readlink())
        except OSError:  # it ended meanwhile
            continue
    return found


def _network(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())


def _enter(pid: int) -> list[str]:
    """``pid`` has made the process namespace for its children, and is not in it itself."""
    inner = f"--pid=/proc/{pid}/ns/pid_for_children"
    return ["nsenter", "--target", str(pid), "--net", "--uts", "--ipc", "--mount", inner]


def _ip(pid: int, arguments: str) -> None:
    done = subprocess.run(
        ["nsenter", "--target", str(pid), "--net", "ip", *arguments.split()], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, f"ip {arguments}: {done.stderr}"


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=20)
