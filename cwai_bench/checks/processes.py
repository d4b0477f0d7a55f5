"""Processes and services."""

from __future__ import annotations

from cwai_bench.checks import DoesNotApply, FactView, NotKnown, Outcome, node_check, passed, warned
from cwai_bench.model import Action, Severity
from cwai_bench.sources import Call, Command, Container, Processes, SteadyNetwork
from cwai_bench.text import Text

PROCESSES = Call("processes")
ZOMBIES = 16
HIDDEN = Text(
    "/proc is mounted with hidepid: only one's own processes are seen", "/proc 以 hidepid 挂载，只能看到自己的进程"
)


def _seen(facts: FactView) -> Processes:
    found = facts.call("processes", Processes)
    if found.hidden:
        raise NotKnown("permission", HIDDEN)
    return found


@node_check(
    "process.stuck",
    title=Text("No process is stuck in the kernel", "无进程卡在内核中"),
    method=Text(
        "/proc/PID/stat looked at several times: state D without a context switch in between",
        "多次查看 /proc/PID/stat：始终处于 D 状态且期间无上下文切换",
    ),
    criterion=Text("none", "无"),
    suggestion=Text(
        "cat /proc/PID/stack (root) names the driver or file system; if it stays, reboot",
        "cat /proc/PID/stack（root）可定位驱动或文件系统；若不恢复则重启",
    ),
    reads=(PROCESSES,),
    severity=Severity.MAJOR,
    action=Action.REBOOT,
    seen="container",
)
def stuck(facts: FactView) -> Outcome:
    found = _seen(facts)
    if not found.stuck:
        return passed(f"0 / {found.total}")
    names = ", ".join(f"{p.name} ({p.pid}{', ' + p.wchan if p.wchan else ''})" for p in found.stuck[:8])
    return warned(f"{len(found.stuck)}: {names}"[:400])


@node_check(
    "process.zombies",
    title=Text("Few zombies", "僵尸进程数量"),
    method=Text("/proc/PID/stat: state Z", "/proc/PID/stat：Z 状态"),
    criterion=Text("fewer than {n}", "少于 {n} 个").fill(n=ZOMBIES),
    suggestion=Text(
        "their parent does not wait for them: ps -eo ppid,stat,comm | grep Z; restart it (in a container: use an init)",
        "其父进程未回收：ps -eo ppid,stat,comm | grep Z；重启父进程（容器内请使用 init）",
    ),
    reads=(PROCESSES,),
    severity=Severity.MINOR,
    seen="container",
)
def zombies(facts: FactView) -> Outcome:
    found = _seen(facts)
    count = found.states.get("Z", 0)
    observed = f"{count} / {found.total}"
    if count < ZOMBIES:
        return passed(observed)
    names = ", ".join(sorted(set(found.zombies))[:8])
    return warned(observed, Text(names, names))


FAILED_UNITS = Command("systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager", "--full")
NO_SYSTEMD = Text("systemd does not run here", "未运行 systemd")


@node_check(
    "services.failed",
    title=Text("No service has failed", "无失败的系统服务"),
    method=Text(FAILED_UNITS.key.removeprefix("$ "), FAILED_UNITS.key.removeprefix("$ ")),
    criterion=Text("none; one is a warning", "无；出现则告警"),
    suggestion=Text("systemctl status UNIT; journalctl -u UNIT", "systemctl status UNIT；journalctl -u UNIT"),
    reads=(FAILED_UNITS, Call("container")),
    severity=Severity.MINOR,
    seen="container",
)
def failed_services(facts: FactView) -> Outcome:
    if not facts.call("container", Container).systemd:
        raise DoesNotApply(NO_SYSTEMD)
    reading = facts.command(*FAILED_UNITS.argv)
    if reading.exit_code != 0:
        raise NotKnown(
            "error",
            Text("systemctl said: {e}", "systemctl 返回：{e}").fill(e=reading.detail[:200] or reading.exit_code),
        )
    units = [line.split()[0] for line in reading.text.splitlines() if line.strip()]
    return warned(", ".join(units[:12])) if units else passed("0")


IRQBALANCE = Command("systemctl", "is-active", "irqbalance.service")


@node_check(
    "services.irqbalance",
    title=Text("Interrupts of RDMA NICs stay where they are", "RDMA 网卡中断不被迁移"),
    method=Text("systemctl is-active irqbalance.service", "systemctl is-active irqbalance.service"),
    # The rdma tuning page of linux-sysinfo-snapshot rates a running irqbalance as not OK.
    criterion=Text("not running on a node with RDMA NICs", "有 RDMA 网卡的节点上不运行"),
    suggestion=Text(
        "systemctl disable --now irqbalance, and pin the NICs' interrupts to their NUMA node",
        "systemctl disable --now irqbalance，并将网卡中断绑定到所在 NUMA 节点",
    ),
    reads=(IRQBALANCE, Call("container"), Call("network")),
    severity=Severity.MINOR,
    seen="container",
)
def irqbalance(facts: FactView) -> Outcome:
    if not facts.call("container", Container).systemd:
        raise DoesNotApply(NO_SYSTEMD)
    rdma = facts.call("network", SteadyNetwork).rdma
    facts.cite(Call("network"), f"rdma devices: {', '.join(rdma) or '-'}")
    if not rdma:
        raise DoesNotApply(Text("no RDMA NIC here", "没有 RDMA 网卡"))
    state = facts.command(*IRQBALANCE.argv).text.strip()
    # systemctl is-active: "inactive" and "unknown" come with exit codes 3 and 4 and are answers all the same
    if not state:
        raise NotKnown("parse", Text("systemctl gave no answer", "systemctl 没有输出"))
    return warned(state) if state in ("active", "activating", "reloading") else passed(state)
