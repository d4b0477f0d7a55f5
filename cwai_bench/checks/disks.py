"""Drives and the file systems on them: present, healthy, mounted as they should be."""

from __future__ import annotations

from collections.abc import Mapping

from cwai_bench.checks import (
    DoesNotApply,
    FactView,
    NotKnown,
    Outcome,
    configurable_check,
    consistency_check,
    failed,
    node_check,
    parsed,
    passed,
    warned,
)
from cwai_bench.checks.pci import NVME
from cwai_bench.model import Action, Reading, Severity
from cwai_bench.readers.nvme import DriveHealth, drive_health
from cwai_bench.readers.smart import smart_status
from cwai_bench.sources import Call, Container, Each, File, Filesystems, Pci
from cwai_bench.text import Text

NVME_STATE = File("sys/class/nvme/nvme[0-9]*/state")
NVME_ADDRESS = File("sys/class/nvme/nvme[0-9]*/address")
NO_NVME = Text("no NVMe drive here", "没有 NVMe 盘")


@node_check(
    "storage.nvme",
    title=Text("Every NVMe drive is in service", "NVMe 盘均在线"),
    method=Text(
        f"NVMe drives in /sys/bus/pci/devices against /{NVME_ADDRESS.path}; /{NVME_STATE.path}",
        f"/sys/bus/pci/devices 中的 NVMe 盘与 /{NVME_ADDRESS.path} 比较；/{NVME_STATE.path}",
    ),
    # drivers/nvme/host/core.c, nvme_sysfs_show_state
    criterion=Text(
        "each drive on PCI has a controller, and each controller is live", "每个 NVMe 盘均有控制器且状态为 live"
    ),
    suggestion=Text(
        "look in the kernel log for “nvme … controller is down”; re-seat the drive, replace it if that comes back",
        "在内核日志中查找“nvme … controller is down”；重新插拔，若复现则更换",
    ),
    reads=(Call("pci"), NVME_STATE, NVME_ADDRESS),
    severity=Severity.MAJOR,
    action=Action.ISOLATE,
)
def nvme(facts: FactView) -> Outcome:
    # A drive that another driver holds (vfio-pci, a storage stack in user space) was taken on purpose.
    drives = [d for d in facts.call("pci", Pci).devices if d.class_code == NVME and d.driver in ("nvme", "")]
    facts.cite(Call("pci"), "\n".join(f"{d.address} {d.model} {d.driver or '-'}" for d in drives) or "-")
    states = {path.split("/")[3]: text.strip() for path, text in facts.glob(NVME_STATE.path).items()}
    known = {text.strip() for text in facts.glob(NVME_ADDRESS.path).values()}
    if not drives and not states:
        raise DoesNotApply(NO_NVME)
    bad = [f"{d.address} -" for d in drives if d.address not in known]
    bad += [f"{name} {state or '?'}" for name, state in states.items() if state != "live"]
    return failed(", ".join(bad[:8])) if bad else passed(f"{len(states)} / {len(states)}")


SMART_LOG = Each("nvme", "smart-log", "/dev/nvme{}", "-o", "json", over="sys/class/nvme/nvme[0-9]*/state")
SMARTCTL = Each("smartctl", "-j", "-a", "/dev/nvme{}", over="sys/class/nvme/nvme[0-9]*/state")
# NVM Express Base Specification 2.0, figure 207, Critical Warning
WARNINGS = ("spare below threshold", "temperature", "reliability degraded", "read only", "backup failed", "PMR")
WORN = 100
"""Percent: the same page's Percentage Used: 100 is the endurance that the maker states; drives go on beyond it."""


def _drives(facts: FactView) -> Mapping[str, Reading]:
    """What either tool says of each drive."""
    try:
        return facts.each(*SMART_LOG.argv)
    except NotKnown as e:
        if e.reason_code != "missing_tool":
            raise
        try:
            found = facts.each(*SMARTCTL.argv)
        except NotKnown as other:
            raise (e if other.reason_code == "missing_tool" else other) from None
        if not found:
            raise
        return found


def _troubles(health: DriveHealth) -> tuple[list[str], list[str]]:
    """What is bad, and what is worth a warning."""
    bad = [word for bit, word in enumerate(WARNINGS) if health.warning >> bit & 1]
    if health.warning >> len(WARNINGS):
        bad.append(f"critical_warning {health.warning:#x}")
    if not bad and health.spare is not None and health.threshold is not None and health.spare < health.threshold:
        bad.append(f"spare {health.spare} %")
    mild = [f"{health.media_errors} media errors"] if health.media_errors else []
    if health.used is not None and health.used >= WORN:
        mild.append(f"{health.used} % worn")
    return bad, mild


@node_check(
    "storage.nvme_health",
    title=Text("NVMe drives are healthy", "NVMe 盘健康状态"),
    method=Text(
        "nvme smart-log /dev/nvmeN -o json, or smartctl -j -a /dev/nvmeN",
        "nvme smart-log /dev/nvmeN -o json，或 smartctl -j -a /dev/nvmeN",
    ),
    criterion=Text(
        "no critical warning, spare not below its threshold; media errors, or {w} % of the endurance used: a warning",
        "无 critical warning，备用空间不低于阈值；出现介质错误或寿命已用 {w} % 及以上则告警",
    ).fill(w=WORN),
    suggestion=Text(
        "copy off what is needed and replace the drive; for a temperature warning look at fans and filters first",
        "备份数据并更换该盘；若为温度告警，先检查风扇与滤网",
    ),
    reads=(SMART_LOG, SMARTCTL, NVME_STATE, Call("container")),
    severity=Severity.MAJOR,
    action=Action.ISOLATE,
    needs=("root", "nvme-cli or smartmontools"),
)
def nvme_health(facts: FactView) -> Outcome:
    if not facts.glob(NVME_STATE.path):
        raise DoesNotApply(NO_NVME)
    drives = _drives(facts)
    if not drives:
        raise NotKnown("parse", Text("no drive was asked", "未查询到任何盘"))
    virtual = facts.call("container", Container).vm
    facts.cite(Call("container"), f"vm: {virtual or '-'}")
    bad, mild = [], []
    for number, reading in sorted(drives.items()):
        if "ermission denied" in reading.text + reading.detail:
            raise NotKnown("permission", Text("only root may ask a drive", "查询 NVMe 盘需要 root"))
        try:
            health = parsed(drive_health, reading.text, f"the health log of nvme{number}")
        except NotKnown:
            if not virtual:
                raise
            raise DoesNotApply(
                Text("a VM: its virtual drives keep no health log", "虚拟机的虚拟盘不提供健康日志")
            ) from None
        worse, better = _troubles(health)
        bad += [f"nvme{number} {' + '.join(worse)}"] if worse else []
        mild += [f"nvme{number} {' + '.join(better)}"] if better else []
    observed = ", ".join((bad + mild)[:8])
    if bad:
        return failed(observed)
    return warned(observed) if mild else passed(f"{len(drives)} / {len(drives)}")


SMART = Each("smartctl", "-j", "-H", "/dev/sd{}", over="sys/block/sd[a-z]*/size", timeout=10.0)


@node_check(
    "storage.smart",
    title=Text("SATA and SAS drives call themselves healthy", "SATA 与 SAS 盘健康自检"),
    method=Text("smartctl -j -H /dev/sdX: smart_status", "smartctl -j -H /dev/sdX 的 smart_status"),
    criterion=Text("passed, of each drive that keeps a status", "有状态的盘均为 passed"),
    suggestion=Text(
        "save what is on it and replace the drive: smartctl -a /dev/sdX tells which attribute failed",
        "备份数据并更换该盘；用 smartctl -a /dev/sdX 查看失败的属性",
    ),
    reads=(SMART, Call("container")),
    severity=Severity.MAJOR,
    action=Action.ISOLATE,
    needs=("root", "smartmontools"),
    tool_optional=True,
)
def smart(facts: FactView) -> Outcome:
    if facts.call("container", Container).vm:
        raise DoesNotApply(Text("a VM: its virtual drives keep no health log", "虚拟机的虚拟盘不提供健康日志"))
    drives = facts.each(*SMART.argv)
    if not drives:
        raise DoesNotApply(Text("no SATA or SAS drive here", "没有 SATA 或 SAS 盘"))
    told = {f"sd{n}": parsed(smart_status, r.text, f"smartctl -j -H /dev/sd{n}") for n, r in sorted(drives.items())}
    if any("ermission denied" in status.message for status in told.values()):
        raise NotKnown("permission", Text("only root may ask a drive", "查询硬盘需要 root"))
    known = {name: status.passed for name, status in told.items() if status.passed is not None}
    if bad := [name for name, passed_ in known.items() if not passed_]:
        return failed(", ".join(bad[:8]))
    # A drive that does not answer says why; a virtual one, or a card reader, has nothing to say.
    if mute := [f"{name}: {s.message}" for name, s in told.items() if s.passed is None and "failed" in s.message]:
        raise NotKnown("error", Text("smartctl, {m}", "smartctl，{m}").fill(m=mute[0][:160]))
    if not known:
        raise DoesNotApply(Text("these drives keep no status", "这些盘不提供健康状态"), "unsupported")
    return passed(f"{len(known)} / {len(told)}")


@configurable_check(
    "nvme.count",
    title=Text("NVMe drives", "NVMe 盘数量"),
    method=Text(f"/{NVME_STATE.path}: those that are live", f"/{NVME_STATE.path}：状态为 live 的数量"),
    suggestion=Text("a drive is lost: re-seat it; look at the kernel log", "盘丢失：重新插拔并查看内核日志"),
    reads=(NVME_STATE,),
    unit="1",
)
def nvme_count(facts: FactView) -> float:
    return sum(text.strip() == "live" for text in facts.glob(NVME_STATE.path).values())


LUSTRE = File("sys/fs/lustre/health_check")


@node_check(
    "storage.lustre",
    title=Text("The Lustre client is healthy", "Lustre 客户端健康"),
    method=Text(f"/{LUSTRE.path} (lctl get_param health_check)", f"/{LUSTRE.path}（lctl get_param health_check）"),
    # lustre/obdclass/lprocfs_status.c, health_check_show: "healthy", or lines of "device NAME reported unhealthy"
    criterion=Text("healthy", "healthy"),
    suggestion=Text(
        "lfs check servers; lctl dl shows which target is not UP; tell the storage team",
        "执行 lfs check servers；用 lctl dl 查看非 UP 的目标；联系存储团队",
    ),
    reads=(LUSTRE,),
    severity=Severity.CRITICAL,
    action=Action.ISOLATE,
)
def lustre(facts: FactView) -> Outcome:
    told = facts.maybe(LUSTRE.path)
    if told is None:
        raise DoesNotApply(Text("no Lustre here", "没有 Lustre"))
    words = " ".join(told.split())
    if not words:
        raise NotKnown("parse", Text("Lustre says nothing of its health", "Lustre 未给出健康状态"))
    return passed(words) if words == "healthy" else failed(words[:200])


ZPOOLS = File("proc/spl/kstat/zfs/*/state")


@node_check(
    "storage.zfs",
    title=Text("ZFS pools are online", "ZFS 存储池在线"),
    method=Text(f"/{ZPOOLS.path} (zpool list -o name,health)", f"/{ZPOOLS.path}（zpool list -o name,health）"),
    criterion=Text("each is ONLINE; DEGRADED is a warning", "均为 ONLINE；DEGRADED 则告警"),
    suggestion=Text(
        "zpool status -x names the drive; zpool replace it", "用 zpool status -x 定位故障盘并 zpool replace"
    ),
    reads=(ZPOOLS,),
    severity=Severity.MAJOR,
    action=Action.ISOLATE,
)
def zfs(facts: FactView) -> Outcome:
    pools = {path.split("/")[-2]: text.strip() for path, text in facts.glob(ZPOOLS.path).items()}
    if not pools:
        raise DoesNotApply(Text("no ZFS pool here", "没有 ZFS 存储池"))
    bad = {name: state for name, state in pools.items() if state != "ONLINE"}
    observed = ", ".join(f"{name} {state or '?'}" for name, state in list((bad or pools).items())[:8])
    if not bad:
        return passed(observed)
    return warned(observed) if set(bad.values()) == {"DEGRADED"} else failed(observed)


MOUNTED = Call("filesystems")


def _mounted(facts: FactView) -> dict[str, str]:
    """Mount point to type and ``ro`` or ``rw``, and for a shared one what is mounted, from whichever server."""
    found = {}
    for f in facts.call("filesystems", Filesystems).filesystems:
        where = f" {f.device.rpartition(':')[2]}" if f.shared else ""
        found[f.mount] = f"{f.type} {'ro' if f.read_only or f.super_read_only else 'rw'}{where}"
    return found


@consistency_check(
    "same.mounts",
    title=Text("File systems mounted", "已挂载的文件系统"),
    method=Text(
        "/proc/self/mountinfo: mount points, types, ro or rw, and the export of shared ones",
        "/proc/self/mountinfo：挂载点、类型、ro/rw 与共享文件系统的导出路径",
    ),
    suggestion=Text("bring /etc/fstab or the automounter's maps in line", "统一 /etc/fstab 或自动挂载配置"),
    reads=(MOUNTED,),
    severity=Severity.MAJOR,
    seen="container",
)
def same_mounts(facts: FactView) -> str:
    return ", ".join(f"{mount} {what}" for mount, what in sorted(_mounted(facts).items())) or "-"


@configurable_check(
    "storage.mounted",
    title=Text("A file system is mounted as it should be", "文件系统按要求挂载"),
    method=Text(
        "/proc/self/mountinfo: “nfs4 rw” and the like (where.name picks mount points)",
        "/proc/self/mountinfo：如“nfs4 rw”（where.name 可限定挂载点）",
    ),
    suggestion=Text(
        "mount MOUNTPOINT; look at /etc/fstab and the kernel log", "mount 挂载点；检查 /etc/fstab 与内核日志"
    ),
    reads=(MOUNTED,),
    unit="text",
    seen="container",
)
def mounted(facts: FactView) -> dict[str, str]:
    return {mount: " ".join(what.split()[:2]) for mount, what in _mounted(facts).items()}
