"""CPUs: are all of them there and awake, and do they run at full speed?"""

from __future__ import annotations

from collections import Counter

from cwai_bench.checks import DoesNotApply, FactView, NotKnown, Outcome, failed, node_check, passed, warned
from cwai_bench.model import Action, Severity
from cwai_bench.sources import Call, Container, Cpus, File, Host
from cwai_bench.text import Text

CPUS = Call("cpus")


def counts(found: Cpus) -> tuple[dict[int, int], list[int]]:
    """Cores of each socket, and the numbers of threads that a core may have, each once."""
    cores = Counter((c.package, c.die, c.core) for c in found.online)
    sockets = Counter(package for package, _, _ in cores)
    return dict(sorted(sockets.items())), sorted(set(cores.values()))


def topology(found: Cpus) -> str:
    """``2 × 32 × 2``: sockets, cores of each, threads of each."""
    sockets, threads = counts(found)
    cores = sorted(set(sockets.values()))
    return f"{len(sockets)} × {'/'.join(map(str, cores))} × {'/'.join(map(str, threads))}"


def _cited(facts: FactView) -> Cpus:
    """The CPUs; of hundreds of lines of topology only the summary becomes evidence."""
    found = facts.call("cpus", Cpus)
    facts.cite(
        CPUS,
        f"model: {found.model}\nsockets × cores × threads: {topology(found)}\npresent {found.present}, "
        f"online {len(found.online)}, offline {found.offline}\nsmt: {found.smt or '-'}\n"
        f"governors: {found.governors or '-'}\ndrivers: {found.drivers or '-'}\n"
        f"throttled, ms: {found.throttled or '-'}",
    )
    return found


@node_check(
    "cpu.sockets",
    title=Text("Sockets have equally many cores", "各 CPU 插槽核数一致"),
    method=Text(
        "/sys/devices/system/cpu/cpu*/topology: cores of each package",
        "/sys/devices/system/cpu/cpu*/topology：每个物理封装的核数",
    ),
    criterion=Text("every socket has the same number of cores", "所有插槽的核数相同"),
    suggestion=Text(
        "a socket with fewer has cores disabled by firmware, or is a wrong part: compare the BIOS settings first",
        "核数偏少的插槽可能被固件屏蔽了部分核，或型号不一致：先核对 BIOS 设置，再核对部件",
    ),
    reads=(CPUS, Call("container")),
    severity=Severity.MAJOR,
    action=Action.CONTACT_VENDOR,
)
def sockets_equal(facts: FactView) -> Outcome:
    found = _cited(facts)
    if found.offline:
        raise DoesNotApply(Text("some CPUs are offline: see cpu.online", "部分 CPU 离线，见 cpu.online"))
    sockets, _ = counts(found)
    if -1 in sockets:
        raise NotKnown(
            "missing_source", Text("the kernel does not say which socket a CPU is on", "内核未提供 CPU 所属插槽")
        )
    observed = ", ".join(f"socket {s}: {n}" for s, n in sockets.items())
    if len(set(sockets.values())) == 1:
        return passed(observed)
    if facts.call("container", Container).vm:
        return warned(observed, Text("a VM: its sockets are made up", "虚拟机的插槽由虚拟化层设定"))
    return failed(observed)


@node_check(
    "cpu.online",
    title=Text("All CPUs are online", "CPU 全部在线"),
    method=Text("/sys/devices/system/cpu/present and online", "/sys/devices/system/cpu/present 与 online"),
    criterion=Text(
        "every CPU that is present is online (second threads may be off when SMT is switched off)",
        "所有存在的 CPU 均在线（关闭 SMT 时第二线程可离线）",
    ),
    suggestion=Text(
        "echo 1 > /sys/devices/system/cpu/cpuN/online; if it stays off, look for machine checks and at the BIOS",
        "echo 1 > /sys/devices/system/cpu/cpuN/online；若无效，检查机器检查（MCE）日志与 BIOS",
    ),
    reads=(CPUS,),
    severity=Severity.MAJOR,
)
def online(facts: FactView) -> Outcome:
    found = _cited(facts)
    observed = f"{len(found.online)} / {found.present}"
    if not found.offline:
        return passed(observed)
    if found.smt in ("off", "forceoff") and len(found.offline) <= len(found.online):
        return passed(observed, Text("SMT is switched off", "SMT 已关闭"))
    listed = ", ".join(map(str, found.offline[:16]))
    return failed(f"{observed}; offline: {listed}")


@node_check(
    "cpu.threads",
    title=Text("Cores have equally many threads", "各核线程数一致"),
    method=Text(
        "/sys/devices/system/cpu/cpu*/topology: threads of each core",
        "/sys/devices/system/cpu/cpu*/topology：每个核的线程数",
    ),
    criterion=Text("every core has the same number of threads online", "所有核的在线线程数相同"),
    suggestion=Text(
        "switch SMT on or off for all cores: /sys/devices/system/cpu/smt/control, or the BIOS",
        "统一开启或关闭 SMT：/sys/devices/system/cpu/smt/control 或 BIOS",
    ),
    reads=(CPUS,),
    severity=Severity.MINOR,
)
def threads_equal(facts: FactView) -> Outcome:
    found = _cited(facts)
    if found.hybrid:
        raise DoesNotApply(Text("a CPU of two kinds of cores", "混合架构 CPU，不同类型的核线程数不同"))
    _, threads = counts(found)
    observed = f"{'/'.join(map(str, threads))} per core, smt {found.smt or '?'}"
    return passed(observed) if len(threads) == 1 else warned(observed)


@node_check(
    "cpu.governor",
    title=Text("CPU frequency governor", "CPU 频率调节策略"),
    method=Text(
        "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
        "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    ),
    criterion=Text("performance on every CPU", "所有 CPU 均为 performance"),
    suggestion=Text(
        "cpupower frequency-set -g performance: launches and small collectives wait for a CPU that has to wake up",
        "cpupower frequency-set -g performance：降频会拖慢算子下发与小消息集合通信",
    ),
    reads=(CPUS,),
    severity=Severity.MINOR,
)
def governor(facts: FactView) -> Outcome:
    found = _cited(facts)
    if not found.governors:
        raise DoesNotApply(
            Text(
                "the kernel does not set the frequency here (a VM, or firmware does)",
                "频率不由内核控制（虚拟机或由固件控制）",
            )
        )
    observed = ", ".join(f"{name} × {n}" for name, n in found.governors.items())
    return passed(observed) if set(found.governors) == {"performance"} else warned(observed)


THROTTLED_SHARE = 0.001


@node_check(
    "cpu.throttled",
    title=Text("CPUs are not throttled by heat", "CPU 未因过热降频"),
    method=Text(
        "/sys/devices/system/cpu/cpu*/thermal_throttle/package_throttle_total_time_ms, against the uptime",
        "/sys/devices/system/cpu/cpu*/thermal_throttle/package_throttle_total_time_ms 与运行时间之比",
    ),
    criterion=Text(
        "no package was throttled for more than {p:g} % of the uptime", "各封装降频时间不超过运行时间的 {p:g} %"
    ).fill(p=THROTTLED_SHARE * 100),
    suggestion=Text("check fans, air flow, heat sinks and the power limit", "检查风扇、风道、散热器与功耗上限"),
    reads=(CPUS, Call("host")),
    severity=Severity.MAJOR,
    action=Action.MONITOR,
)
def throttled(facts: FactView) -> Outcome:
    found = _cited(facts)
    if not found.throttled:
        raise DoesNotApply(Text("this CPU does not count it", "该 CPU 不提供此计数"))
    host = facts.call("host", Host)
    uptime = max(host.taken - host.boot, 1.0)
    worst = max(found.throttled.values()) / 1000
    observed = f"{worst:.1f} s / {uptime / 3600:.1f} h"
    return warned(observed) if worst > uptime * THROTTLED_SHARE else passed(observed)


LOAD_SHARE = 0.5


@node_check(
    "cpu.load",
    title=Text("The node is idle before a job", "作业前节点空闲"),
    method=Text(
        "the 5-minute load of /proc/loadavg, against the CPUs online", "/proc/loadavg 的 5 分钟负载与在线 CPU 数之比"
    ),
    criterion=Text("at most {p:g} per CPU", "每 CPU 不超过 {p:g}").fill(p=LOAD_SHARE),
    suggestion=Text(
        "look for processes of an earlier job: top; ps -eo pid,user,etime,pcpu,comm --sort=-pcpu | head",
        "检查上一个作业的残留进程：top；ps -eo pid,user,etime,pcpu,comm --sort=-pcpu | head",
    ),
    reads=(File("proc/loadavg"), CPUS),
    severity=Severity.MINOR,
    action=Action.MONITOR,
)
def load(facts: FactView) -> Outcome:
    fields = facts.text("proc/loadavg").split()
    try:
        five = float(fields[1])
    except (IndexError, ValueError):
        raise NotKnown("parse", Text("/proc/loadavg is not as expected", "/proc/loadavg 的格式不符")) from None
    cpus = len(_cited(facts).online)
    observed = f"{five:g} / {cpus} CPU"
    return passed(observed) if five <= cpus * LOAD_SHARE else warned(observed)
