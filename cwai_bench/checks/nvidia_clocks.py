"""NVIDIA: clocks, heat, power, and the PCIe link of the cards."""

from __future__ import annotations

from typing import NamedTuple

from cwai_bench.checks import FactView, Outcome, whole
from cwai_bench.checks.nvidia import CARDS, judge_cards, judge_cards_now, method, nvidia_node_check, temperatures
from cwai_bench.model import Action, Severity
from cwai_bench.sources import Call, File, Host, SteadyCard
from cwai_bench.text import Text

HARDWARE = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
"""Reasons that only trouble gives: heat, or a power supply that asks for less."""
SOFTWARE = ("sw_thermal_slowdown",)
SLOWED_SHARE = 0.01
"""Of the uptime; the measure of cpu.throttled, of the same order: what slows one node in a hundred steps is seen."""


class _Slowed(NamedTuple):
    now: list[str]
    share: float

    def __str__(self) -> str:
        reasons = [r for r in self.now if r in (*HARDWARE, *SOFTWARE)]
        if self.share > SLOWED_SHARE:
            reasons.append(f"{self.share:.1%} of the uptime")
        return " ".join(reasons) or "-"


@nvidia_node_check(
    "nvidia.throttle",
    title=Text("Nothing slows the cards down", "GPU 未被降频"),
    method=method(
        "clocks_event_reasons.active, and its counters where the driver has them",
        "clocks_event_reasons.active，及驱动提供的累计计数",
    ),
    criterion=Text(
        "no {h} now; {s}, or more than {p:g} % of the uptime slowed by hardware or heat, is a warning",
        "当前无 {h}；出现 {s}，或因硬件、过热降频超过运行时间的 {p:g} % 则告警",
    ).fill(h=", ".join(HARDWARE), s=", ".join(SOFTWARE), p=SLOWED_SHARE * 100),
    suggestion=Text(
        "heat: fans, air flow, inlet temperature; power brake: power supplies and their cables",
        "过热：检查风扇、风道与进风温度；power brake：检查电源及线缆",
    ),
    reads=(*CARDS, Call("host")),
    severity=Severity.MAJOR,
    action=Action.ISOLATE,
)
def throttle(facts: FactView) -> Outcome:
    host = facts.call("host", Host)
    facts.cite(Call("host"), f"up {(host.taken - host.boot) / 3600:.1f} h")
    uptime = max(host.taken - host.boot, 1.0)

    def slowed(card: SteadyCard) -> _Slowed | None:
        if card.slowed_by is None:
            return None
        longest = max((card.slowed_for.get(r, 0.0) for r in (*HARDWARE, *SOFTWARE)), default=0.0)
        return _Slowed(card.slowed_by, longest / uptime)

    return judge_cards(
        facts,
        slowed,
        bad=lambda s: any(r in HARDWARE for r in s.now),
        mild=lambda s: any(r in SOFTWARE for r in s.now) or s.share > SLOWED_SHARE,
    )


MARGIN = 5.0
"""Degrees: a card so close to its limit before the job has started will reach it."""


@nvidia_node_check(
    "nvidia.heat",
    title=Text("The cards are cool enough", "GPU 温度正常"),
    method=method(
        "temperature.gpu, against the slow-down threshold (or tlimit)", "temperature.gpu 与降频阈值（或 tlimit）之差"
    ),
    criterion=Text(
        "below the slow-down threshold; within {m:g} degrees of it is a warning",
        "低于降频阈值；相差不足 {m:g} 度则告警",
    ).fill(m=MARGIN),
    suggestion=Text(
        "check fans, air flow or coolant, and the inlet temperature; compare with the neighbours",
        "检查风扇、风道或冷却液以及进风温度，并与相邻节点比较",
    ),
    reads=CARDS,
    severity=Severity.MAJOR,
    action=Action.ISOLATE,
)
def heat(facts: FactView) -> Outcome:
    return judge_cards_now(
        facts,
        temperatures,
        lambda c: None if c.margin is None or c.temperature is None else (c.temperature, c.margin),
        bad=lambda t: t[1] <= 0,
        mild=lambda t: t[1] <= MARGIN,
        show=lambda t: f"{t[0]:.0f} °C, {t[1]:.0f} left",
    )


@nvidia_node_check(
    "nvidia.power",
    title=Text("The power limit is the usual one", "功耗上限未被调低"),
    method=method("enforced.power.limit, power.default_limit"),
    criterion=Text("not below the default of the card; lower is a warning", "不低于该卡的默认值；偏低则告警"),
    suggestion=Text(
        "nvidia-smi -pl DEFAULT, unless the site limits power on purpose; see who sets it: a boot script, the BMC",
        "若非机房有意限电，执行 nvidia-smi -pl 默认值；并查明来源：启动脚本或 BMC",
    ),
    reads=CARDS,
    severity=Severity.MAJOR,
)
def power(facts: FactView) -> Outcome:
    return judge_cards(
        facts,
        lambda c: None if c.power_limit is None or c.power_default is None else (c.power_limit, c.power_default),
        mild=lambda limits: limits[0] < limits[1],
        show=lambda limits: f"{limits[0]:g}/{limits[1]:g} W",
    )


@nvidia_node_check(
    "nvidia.clocks",
    title=Text("The clocks asked for are the usual ones", "应用频率未被调低"),
    method=method(
        "clocks.applications.graphics, clocks.default_applications.graphics",
        "clocks.applications.graphics、clocks.default_applications.graphics",
    ),
    criterion=Text("not below the default; lower is a warning", "不低于默认值；偏低则告警"),
    suggestion=Text(
        "nvidia-smi -rac (application clocks), nvidia-smi -rgc (locked clocks)",
        "nvidia-smi -rac（应用频率）、nvidia-smi -rgc（锁定频率）",
    ),
    reads=CARDS,
    severity=Severity.MINOR,
)
def clocks(facts: FactView) -> Outcome:
    return judge_cards(
        facts,
        lambda c: None
        if c.application_clock is None or c.default_application_clock is None
        else (c.application_clock, c.default_application_clock),
        mild=lambda clock: clock[0] < clock[1],
        show=lambda clock: f"{clock[0]:g}/{clock[1]:g} MHz",
    )


REPLAYS_A_MINUTE = 8
"""DCGM's own limit for a PCIe link (dcgm_errors.h, DCGM_LIMIT_MAX_PCIREPLAY_RATE)."""


@nvidia_node_check(
    "nvidia.pcie_replays",
    title=Text("PCIe packets of the cards need no second try", "GPU PCIe 重传较少"),
    method=method("pcie.replay_counter, over the uptime", "pcie.replay_counter 除以运行时间"),
    criterion=Text("at most {n} a minute on average; more is a warning", "平均每分钟不超过 {n} 次；超过则告警").fill(
        n=REPLAYS_A_MINUTE
    ),
    suggestion=Text(
        "re-seat the card, its riser or retimer; see pci.errors for the port above it",
        "重新插拔板卡、转接卡或 retimer；上级端口的情况见 pci.errors",
    ),
    reads=(*CARDS, File("proc/uptime")),
    severity=Severity.MINOR,
    action=Action.CONTACT_VENDOR,
)
def pcie_replays(facts: FactView) -> Outcome:
    seconds = whole(facts.text("proc/uptime").split(".")[0], "proc/uptime")
    minutes = max(seconds / 60, 1.0)
    return judge_cards(facts, lambda c: c.pcie_replays, mild=lambda n: n / minutes > REPLAYS_A_MINUTE)
