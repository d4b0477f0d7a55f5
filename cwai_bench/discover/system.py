"""Questions about the kernel, its processes, its clock and its log; and whether this is a container."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import resource
import socket
import subprocess
import time
from pathlib import Path

from cwai_bench.discover import call
from cwai_bench.sources import (
    Clock,
    Container,
    Crash,
    Host,
    KernelLog,
    Limits,
    LogLine,
    Processes,
    Pstore,
    Stuck,
)

ROOT = Path("/")
CAP_IPC_LOCK = 14  # linux/capability.h


@call("host")
def host() -> Host:
    name = os.uname()
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    now = time.time()
    return Host(
        hostname=socket.gethostname(),
        release=name.release,
        version=name.version,
        machine=name.machine,
        page_size=os.sysconf("SC_PAGE_SIZE"),
        boot=float(round(now - uptime)),
        taken=now,
        timezone=time.strftime("%Z %z"),
        python=platform.python_version(),
        libc=" ".join(platform.libc_ver()),
    )


@call("limits")
def limits() -> Limits:
    known = {
        name.removeprefix("RLIMIT_").lower(): getattr(resource, name)
        for name in dir(resource)
        if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
    }
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text(), re.M)
    return Limits(
        {name: resource.getrlimit(number) for name, number in known.items()},
        effective is not None and bool(int(effective[1], 16) >> CAP_IPC_LOCK & 1),
    )


# ------------------------------------------------------------------------------------------------------ processes

LOOKS = 3
BETWEEN_LOOKS = 0.12
"""Seconds. A disk answers within milliseconds; who stays in one sleep over all looks waits for something else."""
NAMES_KEPT = 64


def _stat(pid: str) -> tuple[str, str] | None:
    """Name and state of a process; None when it is gone. The name may hold blanks and parentheses."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes().decode("utf-8", "backslashreplace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    begin, end = text.index("("), text.rindex(")")
    return text[begin + 1 : end], text[end + 2]


def _sleep_mark(pid: str) -> str | None:
    """Changes whenever the process ran: its context switches."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes().decode("utf-8", "backslashreplace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return " ".join(re.findall(r"^(?:non)?voluntary_ctxt_switches:\s*(\d+)", status, re.M))


def _wchan(pid: str) -> str:
    """Where in the kernel it sleeps; empty when one may not know."""
    try:
        return Path(f"/proc/{pid}/wchan").read_text().strip("0\n ")
    except OSError:
        return ""


@call("processes")
def processes() -> Processes:
    started = time.monotonic()
    states: dict[str, int] = {}
    zombies: list[str] = []
    sleeping: dict[str, tuple[str, str | None]] = {}
    pids = [name for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208
    for pid in pids:
        found = _stat(pid)
        if found is None:
            continue
        name, state = found
        states[state] = states.get(state, 0) + 1
        if state == "Z":
            zombies.append(name)
        elif state == "D":
            sleeping[pid] = (name, _sleep_mark(pid))
    for _ in range(LOOKS - 1):
        if not sleeping:
            break
        time.sleep(BETWEEN_LOOKS)
        for pid, (name, mark) in list(sleeping.items()):
            found = _stat(pid)
            if found is None or found != (name, "D") or _sleep_mark(pid) != mark:
                del sleeping[pid]
    hidden = any("hidepid=" in line and "hidepid=0" not in line for line in _proc_mounts()) and os.geteuid() != 0
    stuck = [Stuck(int(pid), name, _wchan(pid)) for pid, (name, _) in list(sleeping.items())[:NAMES_KEPT]]
    return Processes(
        sum(states.values()), states, stuck, zombies[:NAMES_KEPT], round(time.monotonic() - started, 3), hidden
    )


def _proc_mounts() -> list[str]:
    return [line for line in Path("/proc/self/mounts").read_text().splitlines() if " /proc proc " in line]


# ---------------------------------------------------------------------------------------------------------- clock


class _Timex(ctypes.Structure):
    """``struct timex`` of linux/timex.h, 64 bit."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time_sec", ctypes.c_long),
        ("time_usec", ctypes.c_long),
        ("tick", ctypes.c_long),
        ("ppsfreq", ctypes.c_long),
        ("jitter", ctypes.c_long),
        ("shift", ctypes.c_int),
        ("stabil", ctypes.c_long),
        ("jitcnt", ctypes.c_long),
        ("calcnt", ctypes.c_long),
        ("errcnt", ctypes.c_long),
        ("stbcnt", ctypes.c_long),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * 11),
    )


STA_NANO = 0x2000


@call("clock")
def clock() -> Clock:
    libc = ctypes.CDLL(None, use_errno=True)
    timex = _Timex()  # modes 0: only read
    state = libc.adjtimex(ctypes.byref(timex))
    if state < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return Clock(
        state,
        timex.status,
        timex.offset / (1e9 if timex.status & STA_NANO else 1e6),
        timex.maxerror / 1e6,
        timex.esterror / 1e6,
    )


# ----------------------------------------------------------------------------------------------------- kernel log

LOG_BYTES = 900_000
"""Of the newest lines; what is older is left out, and the log says so. Leaves room for JSON within 1 MiB."""
LINE_CHARACTERS = 400
KLOG_READ_ALL, KLOG_SIZE_BUFFER = 3, 10


@call("kernel_log")
def kernel_log() -> KernelLog:
    """From /dev/kmsg; else by syslog(2), which needs no device file; else, without privilege, from the journal."""
    now = time.time()
    boot = now - time.clock_gettime(time.CLOCK_MONOTONIC)
    refusals: list[OSError] = []
    for came_from, read in (("/dev/kmsg", _from_kmsg), ("syslog(2)", _from_syslog), ("journalctl", _from_journal)):
        try:
            return _newest(came_from, now, read(boot))
        except OSError as e:
            refusals.append(e)
    raise next((e for e in refusals if e.errno in (errno.EPERM, errno.EACCES)), refusals[0])


def _newest(came_from: str, now: float, lines: list[LogLine]) -> KernelLog:
    kept: list[LogLine] = []
    total = 0
    for line in reversed(lines):
        total += len(line.text.encode()) + 32
        if total > LOG_BYTES:
            break
        kept.append(line)
    return KernelLog(came_from, now, kept[::-1], cut=len(kept) < len(lines))


def _from_kmsg(boot: float) -> list[LogLine]:
    """``level,sequence,microseconds,flags;text`` and then indented key=value lines (Documentation/ABI dev-kmsg)."""
    lines: list[LogLine] = []
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while True:
            try:
                record = os.read(fd, 8192)
            except BlockingIOError:
                break
            except BrokenPipeError:  # overwritten while we read: go on with the next one
                continue
            if not record:
                break
            head, _, text = record.decode("utf-8", "backslashreplace").partition(";")
            fields = head.split(",")
            level, micros = int(fields[0]) & 7, int(fields[2])
            lines.append(LogLine(round(boot + micros / 1e6, 3), level, text.split("\n")[0][:LINE_CHARACTERS]))
    finally:
        os.close(fd)
    return lines


_SYSLOG_LINE = re.compile(r"<(\d+)>\[\s*(\d+\.\d+)\](?:\[[^\]]*\])? (.*)")


def _from_syslog(boot: float) -> list[LogLine]:
    libc = ctypes.CDLL(None, use_errno=True)
    size = libc.klogctl(KLOG_SIZE_BUFFER, None, 0)
    buffer = ctypes.create_string_buffer(max(size, 0) + 1)
    count = libc.klogctl(KLOG_READ_ALL, buffer, len(buffer)) if size >= 0 else -1
    if count < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    text = buffer.raw[:count].decode("utf-8", "backslashreplace")
    return [
        LogLine(round(boot + float(m[2]), 3), int(m[1]) & 7, m[3][:LINE_CHARACTERS])
        for m in map(_SYSLOG_LINE.match, text.splitlines())
        if m is not None
    ]


_JOURNAL_LINE = re.compile(r"(\d+\.\d+) \S+ kernel: (.*)")


def _from_journal(_boot: float) -> list[LogLine]:
    """Members of the groups adm and systemd-journal may read it; others get nothing, which is no empty log."""
    try:
        asked = subprocess.run(
            ["journalctl", "--dmesg", "--boot", "--quiet", "--no-pager", "--output=short-unix", "--lines=8000"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=2.0,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from e
    text = asked.stdout.decode("utf-8", "backslashreplace")
    lines = [
        LogLine(float(m[1]), -1, m[2][:LINE_CHARACTERS])
        for m in map(_JOURNAL_LINE.match, text.splitlines())
        if m is not None
    ]
    if not lines:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return lines


@call("pstore")
def pstore() -> Pstore:
    where = Path("/sys/fs/pstore")
    mounted = any(line.split()[1] == str(where) for line in Path("/proc/self/mounts").read_text().splitlines())
    if not where.is_dir():
        return Pstore(False, [])
    records = [Crash(entry.name[:100], entry.stat().st_mtime) for entry in os.scandir(where)]
    return Pstore(mounted, sorted(records, key=lambda r: r.name)[:NAMES_KEPT])


# ------------------------------------------------------------------------------------------------------ container


def _first_line(path: str) -> str:
    try:
        return (ROOT / path).read_bytes().decode("utf-8", "backslashreplace").split("\n")[0].strip()
    except OSError:
        return ""


_CGROUPS = re.compile(r"/(kubepods)[./]|/(docker)/|/(lxc)[./]|(docker|libpod|cri-containerd)-[0-9a-f]{12}")


def _container_kind() -> tuple[str, str]:
    """The kind of container and what gave it away; two empty strings on a host."""
    # A virtual machine whose disk was made from an image keeps its marker file: a machine has a disk and the first
    # PID namespace (PROC_PID_INIT_INO of linux/proc_ns.h), a container has an overlay or a namespace of its own.
    first_namespace = str((ROOT / "proc/self/ns/pid").readlink()) == "pid:[4026531836]"
    whole = first_namespace and not _root_is_overlay()
    for marker, name in ((".dockerenv", "docker"), ("run/.containerenv", "podman")):
        if (ROOT / marker).exists() and not whole:
            return name, f"/{marker}"
    told = _first_line("run/systemd/container") or os.environ.get("container", "")  # noqa: SIM112 - its real name
    if told:
        return told[:40], "container manager"
    try:
        groups = (ROOT / "proc/1/cgroup").read_text() + (ROOT / "proc/self/cgroup").read_text()
    except OSError:
        groups = ""
    found = _CGROUPS.search(groups)
    if found is not None:
        return next(filter(None, found.groups())), "/proc/1/cgroup"
    return ("", "") if first_namespace else ("other", "/proc/self/ns/pid")


def _root_is_overlay() -> bool:
    roots = [line.split() for line in (ROOT / "proc/self/mounts").read_text().splitlines() if line.split()[1] == "/"]
    return bool(roots) and roots[-1][2] == "overlay"


def _hypervisor() -> str:
    """The hypervisor below this machine, or empty: what DMI or the CPU says."""
    product = _first_line("sys/class/dmi/id/product_name")
    for told in (_first_line("sys/class/dmi/id/sys_vendor"), product, _first_line("sys/hypervisor/type")):
        for vendor, name in _VENDORS:
            if vendor in told and not product.endswith("metal"):  # a bare machine of a cloud: i4i.metal
                return name
    try:
        flags = (ROOT / "proc/cpuinfo").read_text()[:16384]
    except OSError:
        return ""
    return "other" if re.search(r"^flags\s*:.*\bhypervisor\b", flags, re.M) else ""


_VENDORS = (
    ("QEMU", "kvm"),
    ("KVM", "kvm"),
    ("VMware", "vmware"),
    ("Virtual Machine", "hyperv"),
    ("VirtualBox", "virtualbox"),
    ("Xen", "xen"),
    ("xen", "xen"),
    ("Google Compute Engine", "gce"),
    ("OpenStack", "openstack"),
    ("Alibaba Cloud ECS", "kvm"),
    ("BHYVE", "bhyve"),
    ("Amazon EC2", "amazon"),
)


def _cgroup_limits() -> tuple[float | None, int | None]:
    """CPUs and bytes that the control group allows; the tightest on the way up, in version 2 and version 1."""
    cpus: list[float] = []
    memory: list[int] = []
    for line in (ROOT / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for base in _cgroup_mounts(controllers):
            here = Path(base + path)
            for folder in (here, *here.parents):
                if not str(folder).startswith(base):
                    break
                quota = _first_line(f"{folder}/cpu.max").split()
                if len(quota) == 2 and quota[0].isdecimal():
                    cpus.append(int(quota[0]) / int(quota[1]))
                old, period = _first_line(f"{folder}/cpu.cfs_quota_us"), _first_line(f"{folder}/cpu.cfs_period_us")
                if old.isdecimal() and period.isdecimal() and int(period) > 0:
                    cpus.append(int(old) / int(period))
                for name in ("memory.max", "memory.limit_in_bytes"):
                    told = _first_line(f"{folder}/{name}")
                    if told.isdecimal() and int(told) < 1 << 60:  # version 1 writes "no limit" as a huge number
                        memory.append(int(told))
    return min(cpus, default=None), min(memory, default=None)


def _cgroup_mounts(controllers: str) -> list[str]:
    if not controllers:
        return ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
    return [f"sys/fs/cgroup/{c}" for c in controllers.split(",") if c in ("cpu", "memory")]


@call("container")
def container() -> Container:
    kind, because = _container_kind()
    cpu_limit, memory_limit = _cgroup_limits()
    return Container(
        kind,
        because,
        _hypervisor(),
        _first_line("proc/1/comm"),
        (ROOT / "run/systemd/system").is_dir(),
        cpu_limit,
        memory_limit,
    )
