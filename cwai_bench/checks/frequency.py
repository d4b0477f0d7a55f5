"""How fast the CPUs may run."""

from __future__ import annotations

from cwai_bench.checks import (
    DoesNotApply,
    FactView,
    Outcome,
    configurable_check,
    consistency_check,
    node_check,
    passed,
    warned,
    whole,
)
from cwai_bench.model import Severity
from cwai_bench.sources import File
from cwai_bench.text import Text

POLICIES = "sys/devices/system/cpu/cpufreq/policy*"
ALLOWED, POSSIBLE = File(f"{POLICIES}/scaling_max_freq"), File(f"{POLICIES}/cpuinfo_max_freq")
NO_TURBO = "sys/devices/system/cpu/intel_pstate/no_turbo"
BOOST = "sys/devices/system/cpu/cpufreq/boost"
NOT_SET_HERE = Text("the kernel does not set the frequency here", "频率不由内核控制")


def _megahertz(facts: FactView, source: File) -> dict[str, float]:
    """By policy (``policy0``: CPUs whose frequency is set together). The files are in kHz."""
    return {path.split("/")[-2]: whole(text, path) / 1000 for path, text in facts.glob(source.path).items()}


@node_check(
    "cpu.capped",
    title=Text("No CPU is kept below its full frequency", "无 CPU 被限制最高频率"),
    method=Text(f"/{ALLOWED.path} against cpuinfo_max_freq", f"/{ALLOWED.path} 与 cpuinfo_max_freq 比较"),
    criterion=Text("scaling_max_freq is not below cpuinfo_max_freq", "scaling_max_freq 不低于 cpuinfo_max_freq"),
    suggestion=Text(
        "cpupower frequency-set -u MAX; look for a power-saving profile of tuned, or a power cap in the BMC",
        "cpupower frequency-set -u MAX；检查 tuned 的节能配置或 BMC 的功率限制",
    ),
    reads=(ALLOWED, POSSIBLE),
    severity=Severity.MINOR,
)
def capped(facts: FactView) -> Outcome:
    allowed, possible = _megahertz(facts, ALLOWED), _megahertz(facts, POSSIBLE)
    both = sorted(set(allowed) & set(possible))
    if not both:
        raise DoesNotApply(NOT_SET_HERE)
    low = [f"{p} {allowed[p]:g}/{possible[p]:g} MHz" for p in both if allowed[p] < possible[p]]
    if low:
        return warned(f"{len(low)} / {len(both)}: {', '.join(low[:4])}")
    return passed(f"{min(allowed.values()):g} MHz, {len(both)} / {len(both)}")


@configurable_check(
    "cpu.frequency",
    title=Text("Highest frequency that the CPUs may run at, in MHz", "CPU 允许的最高频率（MHz）"),
    method=Text(f"/{ALLOWED.path}: the lowest of all CPUs", f"/{ALLOWED.path}：所有 CPU 中的最小值"),
    suggestion=Text("see cpu.capped, cpu.governor", "见 cpu.capped 与 cpu.governor"),
    reads=(ALLOWED,),
    unit="1",
)
def frequency(facts: FactView) -> float:
    found = _megahertz(facts, ALLOWED)
    if not found:
        raise DoesNotApply(NOT_SET_HERE)
    return min(found.values())


@consistency_check(
    "same.boost",
    title=Text("Turbo and highest CPU frequency", "睿频与 CPU 最高频率"),
    method=Text(f"/{NO_TURBO}, /{BOOST}, /{POSSIBLE.path}", f"/{NO_TURBO}、/{BOOST}、/{POSSIBLE.path}"),
    suggestion=Text(
        "set turbo alike in the BIOS of all nodes: the slowest node sets the pace of a step",
        "统一各节点 BIOS 的睿频设置：训练步速由最慢的节点决定",
    ),
    reads=(File(NO_TURBO), File(BOOST), POSSIBLE),
    severity=Severity.MINOR,
)
def boost(facts: FactView) -> str:
    no_turbo, boosted = facts.maybe(NO_TURBO), facts.maybe(BOOST)
    highest = _megahertz(facts, POSSIBLE)
    if no_turbo is None and boosted is None and not highest:
        raise DoesNotApply(NOT_SET_HERE)
    turbo = "?"
    if no_turbo is not None:
        turbo = "off" if whole(no_turbo, NO_TURBO) else "on"
    elif boosted is not None:
        turbo = "on" if whole(boosted, BOOST) else "off"
    return f"turbo {turbo}, " + "/".join(f"{f:g}" for f in sorted(set(highest.values()))) + " MHz"
