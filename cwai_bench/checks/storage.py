"""File systems: room left, writable, mounted as configured, answering."""

from __future__ import annotations

import re

from cwai_bench.checks import DoesNotApply, FactView, Outcome, failed, node_check, passed, warned
from cwai_bench.model import Action, Severity
from cwai_bench.sources import Call, Container, File, Filesystem, Filesystems
from cwai_bench.text import Text

FILESYSTEMS = Call("filesystems")
# imbue-ai/cluster-health fails at 95 %, Facebook's gcm warns at 85 %.
FULL, NEARLY_FULL = 0.95, 0.85
FILLING = Text(
    "below {w:g} % in use; a local one fails from {f:g} % on", "已用低于 {w:g} %；本地文件系统达到 {f:g} % 则不通过"
).fill(w=NEARLY_FULL * 100, f=FULL * 100)
ALWAYS_READ_ONLY = ("squashfs", "iso9660", "erofs")
SMALL = 64 << 20
"""Bytes: boot and firmware partitions run nearly full by design and nobody writes there."""


def writable(found: Filesystems) -> list[Filesystem]:
    """Those that answer and that are for writing."""
    return [f for f in found.filesystems if f.status == "ok" and not f.read_only and f.size > SMALL]


def _cited(facts: FactView) -> Filesystems:
    found = facts.call("filesystems", Filesystems)
    lines = [
        f"{f.mount} {f.device} {f.type} {'ro' if f.read_only else 'rw'}{' super-ro' if f.super_read_only else ''} "
        f"size {f.size} avail {f.available} inodes {f.inodes} free {f.inodes_free} {f.status} {f.detail}".rstrip()
        for f in found.filesystems
    ]
    facts.cite(FILESYSTEMS, "\n".join(lines))
    return found


def _fullest(found: list[Filesystem], used: list[float]) -> Outcome:
    """The verdict on the shares in use; the fullest first. A shared one is no fault of this node: it only warns."""
    ordered = sorted(zip(used, found, strict=True), key=lambda u: -u[0])
    observed = ", ".join(f"{f.mount} {share * 100:.1f} %" for share, f in ordered[:4])
    if any(share >= FULL and not f.shared for share, f in ordered):
        return failed(observed)
    return warned(observed) if ordered[0][0] >= NEARLY_FULL else passed(observed)


@node_check(
    "storage.space",
    title=Text("Disk space", "磁盘空间"),
    method=Text(
        "statvfs(2) of each mounted file system (as df does)", "对各已挂载文件系统执行 statvfs(2)（与 df 相同）"
    ),
    criterion=FILLING,
    suggestion=Text(
        "find what fills it: df -h; du -xh --max-depth=2 | sort -h | tail",
        "定位占用：df -h；du -xh --max-depth=2 | sort -h | tail",
    ),
    reads=(FILESYSTEMS,),
    severity=Severity.MAJOR,
    seen="container",
)
def space(facts: FactView) -> Outcome:
    found = writable(_cited(facts))
    if not found:
        raise DoesNotApply(Text("no file system here is written to", "没有可写的文件系统"))
    # As df: what root keeps for itself counts as neither used nor available.
    return _fullest(found, [(f.size - f.free) / max(f.size - f.free + f.available, 1) for f in found])


@node_check(
    "storage.inodes",
    title=Text("Inodes", "inode 余量"),
    method=Text(
        "statvfs(2) of each mounted file system (as df -i does)", "对各已挂载文件系统执行 statvfs(2)（与 df -i 相同）"
    ),
    criterion=FILLING,
    suggestion=Text(
        "many small files: find DIR -xdev -printf '%h\\n' | sort | uniq -c | sort -n | tail",
        "小文件过多：find DIR -xdev -printf '%h\\n' | sort | uniq -c | sort -n | tail",
    ),
    reads=(FILESYSTEMS,),
    severity=Severity.MAJOR,
    seen="container",
)
def inodes(facts: FactView) -> Outcome:
    found = [f for f in writable(_cited(facts)) if f.inodes]
    if not found:
        raise DoesNotApply(Text("no file system here has a fixed number of inodes", "没有固定 inode 数的文件系统"))
    return _fullest(found, [1 - f.inodes_free / f.inodes for f in found])


def fstab(text: str) -> dict[str, set[str]]:
    """Mount point to options; swap and what is not mounted at boot left out."""
    found = {}
    for line in text.splitlines():
        fields = line.split("#")[0].split()
        if len(fields) < 4 or not fields[1].startswith("/"):
            continue
        options = set(fields[3].split(","))
        if not options & {"noauto", "x-systemd.automount"}:
            mount = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[1])
            found[mount.rstrip("/") or "/"] = options
    return found


@node_check(
    "storage.read_only",
    title=Text("No file system fell back to read-only", "无文件系统被降级为只读"),
    method=Text(
        "options of the file systems in /proc/self/mountinfo, against /etc/fstab",
        "/proc/self/mountinfo 中文件系统自身的选项，与 /etc/fstab 比较",
    ),
    criterion=Text("none is read-only unless /etc/fstab wants it so", "除 /etc/fstab 指定外，没有只读的文件系统"),
    suggestion=Text(
        "the kernel log says why (a disk error, usually); check the disk, then fsck and remount",
        "内核日志会给出原因（多为磁盘错误）；检查磁盘，fsck 后重新挂载",
    ),
    reads=(FILESYSTEMS, File("etc/fstab")),
    severity=Severity.CRITICAL,
    action=Action.ISOLATE,
    seen="container",
)
def read_only(facts: FactView) -> Outcome:
    found = _cited(facts)
    wanted = fstab(facts.maybe("etc/fstab") or "")
    local = [f for f in found.filesystems if f.type not in ALWAYS_READ_ONLY]
    bad = [f for f in local if f.super_read_only and "ro" not in wanted.get(f.mount, set())]
    if not bad:
        return passed(f"0 / {len(local)}")
    observed = ", ".join(f"{f.mount} ({f.type})" for f in bad[:8])
    listed = [f for f in bad if f.mount in wanted]
    if listed:
        return failed(observed)
    return warned(
        observed, Text("/etc/fstab does not list it, so it may be meant so", "未列于 /etc/fstab，可能是有意为之")
    )


@node_check(
    "storage.mounts",
    title=Text("Everything in fstab is mounted", "fstab 中的挂载点均已挂载"),
    method=Text("/etc/fstab against /proc/self/mounts", "/etc/fstab 与 /proc/self/mounts 比较"),
    criterion=Text("no mount is missing (one with nofail: a warning)", "没有缺失的挂载（带 nofail 的缺失则告警）"),
    suggestion=Text("mount -a, and look at what it says", "执行 mount -a 并查看其输出"),
    reads=(File("etc/fstab"), File("proc/self/mounts"), Call("container")),
    severity=Severity.MAJOR,
    seen="container",
)
def mounts(facts: FactView) -> Outcome:
    if facts.call("container", Container).kind:
        raise DoesNotApply(Text("in a container the mounts are not those of fstab", "容器内的挂载与 fstab 无关"))
    text = facts.maybe("etc/fstab")
    wanted = fstab(text or "")
    if not wanted:
        raise DoesNotApply(Text("/etc/fstab lists nothing to mount", "/etc/fstab 未列出挂载点"))
    there = {
        re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), line.split()[1])
        for line in facts.text("proc/self/mounts").splitlines()
        if len(line.split()) > 1
    }
    missing = [mount for mount in wanted if mount not in there]
    if any("nofail" not in wanted[mount] for mount in missing):
        return failed(", ".join(missing[:8]))
    return warned(", ".join(missing[:8])) if missing else passed(f"{len(wanted)} / {len(wanted)}")


@node_check(
    "storage.answers",
    title=Text("Every file system answers", "所有文件系统均有响应"),
    method=Text(
        "statvfs(2) of each, shared ones in processes that can be killed",
        "逐一 statvfs(2)，共享文件系统在可终止的子进程中执行",
    ),
    criterion=Text("each answers in time, without error", "均在限时内无错返回"),
    suggestion=Text(
        "its server or the way there is gone: check the network, then umount -f -l and mount again",
        "其服务端或网络不可达：检查网络，然后 umount -f -l 并重新挂载",
    ),
    reads=(FILESYSTEMS,),
    severity=Severity.CRITICAL,
    action=Action.ISOLATE,
    seen="container",
)
def answers(facts: FactView) -> Outcome:
    found = _cited(facts).filesystems
    if not found:
        raise DoesNotApply(Text("no real file system is mounted here", "没有挂载实际的文件系统"))
    bad = [f for f in found if f.status in ("timeout", "error")]
    if not bad:
        return passed(f"{len(found)} / {len(found)}")
    return failed(", ".join(f"{f.mount} ({f.type}): {f.status} {f.detail}" for f in bad[:4])[:400])


SHM = 1 << 30


@node_check(
    "storage.shm",
    title=Text("Shared memory of /dev/shm", "/dev/shm 共享内存"),
    method=Text("statvfs(2) of /dev/shm", "对 /dev/shm 执行 statvfs(2)"),
    # NCCL User Guide, Troubleshooting, Docker: "--shm-size=1g"; Docker's default is 64 MiB.
    criterion=Text("at least {g} GiB", "不低于 {g} GiB").fill(g=SHM >> 30),
    suggestion=Text(
        "docker run --shm-size=1g or --ipc=host; Kubernetes: an emptyDir of medium Memory at /dev/shm",
        "docker run --shm-size=1g 或 --ipc=host；Kubernetes：在 /dev/shm 挂载 medium 为 Memory 的 emptyDir",
    ),
    reads=(FILESYSTEMS,),
    severity=Severity.MAJOR,
    seen="container",
)
def shm(facts: FactView) -> Outcome:
    found = _cited(facts).shm
    if found is None:
        return failed("-", Text("there is no /dev/shm", "不存在 /dev/shm"))
    facts.cite(FILESYSTEMS, f"/dev/shm: size {found.size}, available {found.available}")
    observed = f"{found.available / (1 << 20):.0f} / {found.size / (1 << 20):.0f} MiB free"
    return passed(observed) if found.size >= SHM else warned(observed)


# Documentation/admin-guide/md.rst; drivers/md/md.c: [UU_] has a letter for each member, _ for one that is missing
_ARRAY = re.compile(r"^(md\S*) : (.*)$")
_MEMBERS = re.compile(r"\[(\d+)/(\d+)\] \[([U_]+)\]")


@node_check(
    "storage.raid",
    title=Text("Software RAID is complete", "软件 RAID 完整"),
    method=Text("/proc/mdstat", "/proc/mdstat"),
    criterion=Text("no array misses a member; one that is being rebuilt is a warning", "阵列无缺失成员；重建中则告警"),
    suggestion=Text(
        "mdadm --detail /dev/mdN, then replace the failed member", "执行 mdadm --detail /dev/mdN，并更换故障成员"
    ),
    reads=(File("proc/mdstat"),),
    severity=Severity.MAJOR,
    action=Action.ISOLATE,
)
def raid(facts: FactView) -> Outcome:
    arrays: dict[str, str] = {}
    for line in (facts.maybe("proc/mdstat") or "").splitlines():
        start = _ARRAY.match(line)
        if start is not None:
            arrays[start[1]] = start[2]
        elif arrays:
            arrays[list(arrays)[-1]] += f"\n{line}"
    if not arrays:
        raise DoesNotApply(Text("no software RAID here", "没有软件 RAID"))
    broken, rebuilding = [], []
    for name, text in arrays.items():
        members = _MEMBERS.search(text)
        incomplete = "inactive" in text.split("\n")[0] or "(F)" in text or (members is not None and "_" in members[3])
        state = f"{name} {members[0]}" if members is not None else name
        if re.search(r"\b(?:recovery|resync|reshape) = ", text):
            rebuilding.append(state)
        elif incomplete:
            broken.append(state)
    if broken:
        return failed(", ".join(broken))
    return warned(", ".join(rebuilding)) if rebuilding else passed(", ".join(arrays))
