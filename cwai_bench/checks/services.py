"""Services, packages, and what runs on a node beside the job."""

from __future__ import annotations

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
from cwai_bench.checks.kind import accelerators
from cwai_bench.checks.processes import HIDDEN, NO_SYSTEMD, PROCESSES
from cwai_bench.model import Action, Severity
from cwai_bench.readers.host import UNIT_PROPERTIES, Process, Unit, boots, packages, processes, tracking, units
from cwai_bench.readers.json_answer import decoded_object
from cwai_bench.sources import Call, Command, Container, File, Pci, Processes
from cwai_bench.text import Text

CONTAINER = Call("container")
RUNTIMES = ("docker", "containerd", "crio")
TIME_SERVICES = ("chronyd", "chrony")
DAEMONS = (
    "ssh",
    "sshd",
    *RUNTIMES,
    "kubelet",
    "slurmd",
    "munge",
    *TIME_SERVICES,
    "ntpd",
    "ptp4l",
    "sssd",
    "autofs",
    "openibd",
    "lldpd",
    "rasdaemon",
    "tuned",
    "firewalld",
    "ufw",
    "nftables",
)
"""What a training node may run; those that have an item of their own are left out."""
SERVICES = Command("systemctl", "show", f"--property={','.join(UNIT_PROPERTIES)}", *(f"{d}.service" for d in DAEMONS))
RUNNING = ("active", "activating", "reloading")


def _installed(facts: FactView) -> dict[str, Unit]:
    """Those of DAEMONS that are installed, by the name that systemd has for them; only they become evidence."""
    if not facts.call("container", Container).systemd:
        raise DoesNotApply(NO_SYSTEMD)
    reading = facts.command(*SERVICES.argv)
    if reading.exit_code != 0:
        raise NotKnown("error", Text("systemctl said: {e}", "systemctl 返回：{e}").fill(e=reading.detail[:200]))
    told = parsed(units, reading.text, "systemctl show")
    if len(told) != len(DAEMONS):
        raise NotKnown("parse", Text("systemctl did not tell of all services", "systemctl 未返回全部服务的状态"))
    found = {u.name.removesuffix(".service"): u for u in told if u.load not in ("not-found", "masked")}
    facts.cite(SERVICES, "\n".join(f"{u.name} {u.file or '-'} {u.active}" for u in found.values()) or "-")
    return found


@node_check(
    "services.enabled",
    title=Text("Services that are enabled run", "已启用的服务均在运行"),
    method=Text(
        "systemctl show: UnitFileState and ActiveState of {d}", "systemctl show：{d} 的 UnitFileState 与 ActiveState"
    ).fill(d=", ".join(DAEMONS)),
    criterion=Text(
        "none that is enabled has failed; one that is merely stopped is a warning",
        "已启用的服务均未失败；仅为停止状态则告警",
    ),
    suggestion=Text(
        "journalctl -u UNIT says why; systemctl start UNIT", "用 journalctl -u UNIT 查明原因；systemctl start UNIT"
    ),
    reads=(SERVICES, CONTAINER),
    severity=Severity.MAJOR,
    seen="container",
)
def enabled(facts: FactView) -> Outcome:
    # One whose conditions do not hold here (no configuration file, no such device) is not meant to run.
    wanted = {
        name: u.active
        for name, u in _installed(facts).items()
        if u.file == "enabled" and (u.condition or u.active in (*RUNNING, "failed"))
    }
    if not wanted:
        raise DoesNotApply(Text("none of these services is enabled here", "这些服务均未启用"))
    bad = {name: state for name, state in wanted.items() if state not in RUNNING}
    observed = ", ".join(f"{name} {state}" for name, state in bad.items())
    if "failed" in bad.values():
        return failed(observed)
    return warned(observed) if bad else passed(f"{len(wanted)} / {len(wanted)}")


@configurable_check(
    "services.state",
    title=Text("State of a service", "服务状态"),
    method=Text(
        "systemctl show: ActiveState of {d} (where.name picks one)",
        "systemctl show：{d} 的 ActiveState（where.name 可限定）",
    ).fill(d=", ".join(DAEMONS)),
    suggestion=Text("systemctl enable --now UNIT (or disable)", "systemctl enable --now UNIT（或 disable）"),
    reads=(SERVICES, CONTAINER),
    unit="text",
    seen="container",
)
def state(facts: FactView) -> dict[str, str]:
    return {name: u.active for name, u in _installed(facts).items()}


@consistency_check(
    "same.services",
    title=Text("Services enabled and running", "服务启用与运行状态"),
    method=Text("systemctl show of {d}", "systemctl show {d}").fill(d=", ".join(DAEMONS)),
    suggestion=Text(
        "enable and start the same services on all nodes; a firewall on one of them breaks only some pairs",
        "统一各节点服务的启用与运行状态；个别节点开启防火墙会导致部分节点对不通",
    ),
    reads=(SERVICES, CONTAINER),
    severity=Severity.MINOR,
    seen="container",
)
def same_services(facts: FactView) -> str:
    found = _installed(facts)
    return ", ".join(f"{name} {u.file or '-'}/{u.active}" for name, u in sorted(found.items())) or "-"


CHRONY = Command("chronyc", "-n", "-c", "tracking")
CHRONY_STALE = 3600.0
"""Seconds; chronyd polls each 1024 s at most unless told otherwise (chrony.conf: maxpoll 10), and may miss some."""
LOCAL_REFERENCE = "127.127.1."


@node_check(
    "clock.chrony",
    title=Text("chrony follows a time server", "chrony 正在跟随时间服务器"),
    method=Text(CHRONY.key.removeprefix("$ "), CHRONY.key.removeprefix("$ ")),
    criterion=Text(
        "synchronised, not with its own clock, and updated less than {h:g} h ago",
        "已同步，参考源不是本机时钟，且最近一次更新在 {h:g} 小时之内",
    ).fill(h=CHRONY_STALE / 3600),
    suggestion=Text(
        "chronyc sources -v: are the servers reachable (UDP 123)? The kernel calls the clock synchronised long after",
        "执行 chronyc sources -v，检查服务器是否可达（UDP 123）；失联后数小时内内核仍会认为时钟已同步",
    ),
    reads=(SERVICES, CHRONY, CONTAINER),
    severity=Severity.MINOR,
    seen="container",
)
def chrony(facts: FactView) -> Outcome:
    running = [name for name, u in _installed(facts).items() if name in TIME_SERVICES and u.active in RUNNING]
    if not running:
        raise DoesNotApply(Text("chrony does not run here: see clock.sync", "未运行 chrony，见 clock.sync"))
    reading = facts.command(*CHRONY.argv)
    if reading.exit_code != 0:
        said = (reading.text or reading.detail).strip()[:200]
        raise NotKnown("error", Text("chronyc said: {e}", "chronyc 返回：{e}").fill(e=said))
    found = parsed(tracking, reading.text, "chronyc tracking")
    age = facts.taken - found.updated
    observed = f"{found.source} stratum {found.stratum}, {found.leap}, {age:.0f} s ago"
    if found.leap == "Not synchronised" or found.source.startswith(LOCAL_REFERENCE) or age > CHRONY_STALE:
        return warned(observed)
    return passed(observed)


# -------------------------------------------------------------------------------------------------------- packages

PACKAGES = (
    "libnccl*",
    "cuda-drivers*",
    "cuda-compat*",
    "nvidia-driver*",
    "nvidia-fabricmanager*",
    "nvidia-container-toolkit",
    "datacenter-gpu-manager*",
    "amdgpu-dkms",
    "rocm-core",
    "rccl",
    "rdma-core",
    "libibverbs*",
    "mlnx-ofa*",
    "mlnx-ofed*",
    "doca-ofed*",
    "ucx",
    "openmpi*",
    "docker-ce",
    "containerd*",
    "lustre-client*",
    "slurm*",
)
DPKG = Command("dpkg-query", "-W", r"-f=${db:Status-Abbrev}|${Package}|${Version}\n", *PACKAGES)
RPM = Command("rpm", "-qa", "--qf", r"%{NAME}|%{VERSION}-%{RELEASE}\n", *PACKAGES)


@consistency_check(
    "same.packages",
    title=Text("Versions of packages", "软件包版本"),
    method=Text("dpkg-query -W or rpm -qa of {p}", "dpkg-query -W 或 rpm -qa：{p}").fill(p=" ".join(PACKAGES)),
    suggestion=Text("install the same image, or the same versions, on all nodes", "为所有节点安装相同的镜像或版本"),
    reads=(DPKG, RPM),
    severity=Severity.MAJOR,
    seen="container",
)
def same_packages(facts: FactView) -> str:
    found: dict[str, str] = {}
    asked = [command for command in (DPKG, RPM) if not facts.absent(command.key)]
    for command in asked:
        # dpkg-query ends with 1 when one of the names is not there, and tells of the others all the same
        found |= parsed(packages, facts.command(*command.argv).text, command.argv[0])
    if not found:
        raise DoesNotApply(Text("no such package is installed", "未安装这些软件包"))
    facts.cite(asked[0], "\n".join(f"{name} {version}" for name, version in sorted(found.items())))
    return ", ".join(f"{name} {version}" for name, version in sorted(found.items()))


# ------------------------------------------------------------------------------------------------------ containers

DOCKER_CONFIG = File("etc/docker/daemon.json")
OTHER_CONFIGS = {
    "containerd": (File("etc/containerd/config.toml"), File("etc/containerd/conf.d/*.toml")),
    "crio": (File("etc/crio/crio.conf"), File("etc/crio/crio.conf.d/*.conf")),
}
CDI = (File("etc/cdi/*"), File("run/cdi/*"))
"""Container Device Interface: a file here names the cards for any runtime that knows CDI."""
NVIDIA = "10de"


@node_check(
    "container.gpu_runtime",
    title=Text("Containers can be given GPUs", "容器运行时已配置 GPU"),
    method=Text(
        "/etc/docker/daemon.json, /etc/containerd, /etc/crio, /etc/cdi, /run/cdi: the NVIDIA runtime or CDI",
        "/etc/docker/daemon.json、/etc/containerd、/etc/crio、/etc/cdi、/run/cdi 中的 NVIDIA 运行时或 CDI",
    ),
    criterion=Text(
        "on a node with NVIDIA GPUs one of the container runtimes that run is set up for them",
        "在有 NVIDIA GPU 的节点上，至少一个运行中的容器运行时已完成配置",
    ),
    suggestion=Text(
        "nvidia-ctk runtime configure --runtime=docker (or containerd, crio), then restart it",
        "nvidia-ctk runtime configure --runtime=docker（或 containerd、crio），然后重启该服务",
    ),
    reads=(
        Call("pci"),
        SERVICES,
        CONTAINER,
        DOCKER_CONFIG,
        *(f for files in OTHER_CONFIGS.values() for f in files),
        *CDI,
    ),
    severity=Severity.MAJOR,
    seen="container",
)
def gpu_runtime(facts: FactView) -> Outcome:
    cards = [d for d in accelerators(facts.call("pci", Pci)) if d.model.split(":")[0] == NVIDIA]
    facts.cite(Call("pci"), f"NVIDIA cards: {len(cards)}")
    if not cards:
        raise DoesNotApply(Text("no NVIDIA GPU here", "没有 NVIDIA GPU"))
    running = [name for name, u in _installed(facts).items() if name in RUNTIMES and u.active in RUNNING]
    if not running:
        raise DoesNotApply(Text("no container runtime runs here", "未运行容器运行时"))
    ready = [name for name in running if _runtime_is_configured(facts, name)]
    ready += [
        f"cdi {path}" for source in CDI for path, text in facts.glob(source.path).items() if "nvidia.com/" in text
    ]
    return passed(", ".join(ready[:8])) if ready else warned(", ".join(running))


def _runtime_is_configured(facts: FactView, name: str) -> bool:
    if name != "docker":
        plain, pattern = OTHER_CONFIGS[name]
        return any("nvidia" in text for text in [facts.maybe(plain.path) or "", *facts.glob(pattern.path).values()])
    text = facts.maybe(DOCKER_CONFIG.path)
    if text is None or not text.strip():
        return False
    runtimes = parsed(decoded_object, text, "/etc/docker/daemon.json").get("runtimes")
    return isinstance(runtimes, dict) and any("nvidia" in str(name) for name in runtimes)


# ------------------------------------------------------------------------------------------------- what else runs

PS = Command("ps", "-e", "--no-headers", "-o", "uid,pid,etimes,rss,pcpu,comm")
LEFTOVER_AGE, LEFTOVER_MEMORY, LEFTOVER_CPU = 300, 1 << 30, 0.5
# systemd, docs/UIDS-GIDS.md: 1000 to 60000 are people, 60001 to 65535 are systemd's own and nobody.
FIRST_PERSON, SYSTEMD_FIRST, SYSTEMD_LAST = 1000, 60001, 65535


def _of_a_person(process: Process) -> bool:
    return process.uid >= FIRST_PERSON and not SYSTEMD_FIRST <= process.uid <= SYSTEMD_LAST


@node_check(
    "process.leftover",
    title=Text("No process of an earlier job is left", "无前一作业遗留的进程"),
    method=Text(PS.key.removeprefix("$ "), PS.key.removeprefix("$ ")),
    criterion=Text(
        "no process of a person (uid {u} and above) older than {a} s holds {m} GiB or kept half a CPU busy",
        "不存在普通用户（uid 不低于 {u}）运行超过 {a} 秒、且占用 {m} GiB 内存或半个 CPU 以上的进程",
    ).fill(u=FIRST_PERSON, a=LEFTOVER_AGE, m=LEFTOVER_MEMORY >> 30),
    suggestion=Text(
        "ask whose they are (ps -o user,args -p PID), then let the scheduler's epilog kill what a job leaves",
        "确认归属（ps -o user,args -p PID），并在调度系统的 epilog 中清理作业遗留进程",
    ),
    reads=(PS, PROCESSES),
    severity=Severity.MINOR,
    action=Action.FIX_CONFIG,
    seen="container",
)
def leftover(facts: FactView) -> Outcome:
    if facts.call("processes", Processes).hidden:
        raise NotKnown("permission", HIDDEN)
    reading = facts.command(*PS.argv)
    if reading.exit_code != 0:
        raise NotKnown("error", Text("ps said: {e}", "ps 返回：{e}").fill(e=reading.detail[:200]))
    found = parsed(processes, reading.text, "ps")
    old = [p for p in found if _of_a_person(p) and p.age >= LEFTOVER_AGE]
    bad = sorted(
        (p for p in old if p.memory >= LEFTOVER_MEMORY or p.cpu >= LEFTOVER_CPU), key=lambda p: (-p.memory, p.pid)
    )
    shown = [f"{p.name} ({p.pid}, uid {p.uid}, {p.memory / (1 << 30):.1f} GiB, cpu {p.cpu:.1f})" for p in bad[:8]]
    facts.cite(PS, "\n".join(shown) or f"{len(found)} processes, {len(old)} of people older than {LEFTOVER_AGE} s")
    facts.cite(PROCESSES, f"hidden: {'yes' if facts.call('processes', Processes).hidden else 'no'}")
    return warned(f"{len(bad)}: {', '.join(shown[:4])}"[:400]) if bad else passed(f"0 / {len(found)}")


LAST = Command("last", "-w", "--time-format", "iso", "reboot")
BOOT_WINDOW, BOOTS_MANY = 24 * 3600.0, 3


@node_check(
    "host.reboots",
    title=Text("The node does not boot again and again", "节点未反复重启"),
    method=Text(LAST.key.removeprefix("$ "), LAST.key.removeprefix("$ ")),
    criterion=Text("fewer than {n} boots in {h:g} h", "{h:g} 小时内启动少于 {n} 次").fill(
        n=BOOTS_MANY, h=BOOT_WINDOW / 3600
    ),
    suggestion=Text(
        "look at the BMC's event log and at journalctl -b -1 for why it went down",
        "查看 BMC 事件日志与 journalctl -b -1，确认重启原因",
    ),
    reads=(LAST, CONTAINER),
    severity=Severity.MAJOR,
    action=Action.MONITOR,
    seen="container",
)
def reboots(facts: FactView) -> Outcome:
    if facts.call("container", Container).kind:
        raise DoesNotApply(Text("a container has no record of the host's boots", "容器内没有宿主机的启动记录"))
    if facts.absent(LAST.key):
        raise DoesNotApply(Text("no record of boots is kept here (no last)", "本机不保存启动记录（无 last 命令）"))
    times, since = parsed(boots, facts.command(*LAST.argv).text, "last")
    covered = min(facts.taken - since, BOOT_WINDOW) / 3600
    lately = [t for t in times if facts.taken - BOOT_WINDOW <= t <= facts.taken + 1]
    observed = f"{len(lately)} in {covered:.1f} h"
    return warned(observed) if len(lately) >= BOOTS_MANY else passed(observed)
