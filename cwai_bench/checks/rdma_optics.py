"""Transceivers, cables, and how many bits they get wrong."""

from __future__ import annotations

from cwai_bench.checks import (
    DoesNotApply,
    FactView,
    NotKnown,
    Outcome,
    configurable_check,
    failed,
    node_check,
    passed,
    warned,
)
from cwai_bench.checks.rdma import READS, Port, hardware, in_use, named
from cwai_bench.checks.roce import NICS, answers, interface
from cwai_bench.model import Action, Severity
from cwai_bench.readers import nic
from cwai_bench.sources import Each
from cwai_bench.text import Text

MODULES = Each("ethtool", "-m", "{}", over=NICS, timeout=10.0)


def modules(facts: FactView) -> dict[str, nic.Module]:
    """The modules of the ports that are up, by port. Raises DoesNotApply where none has optics."""
    result = answers(facts, MODULES, hardware(in_use(facts)), nic.module, of=_interface)
    facts.cite(
        MODULES,
        lambda: "\n".join(f"[{name}] {m.identifier} {m.part or '-'} {_figures(m)}" for name, m in result.items()),
    )
    if all(m.copper for m in result.values()):
        raise DoesNotApply(Text("copper cables have no optics", "铜缆没有光模块"))
    return result


def _interface(port: Port) -> str:
    if port.device.virtual_function:
        raise DoesNotApply(Text("a virtual function has no module of its own", "虚拟功能没有自己的光模块"))
    return interface(port)


def _figures(module: nic.Module) -> str:
    if module.copper:
        return "copper"
    powers = " ".join(f"{p:g}" for p in module.receive.values())
    return f"rx {powers} dBm, {module.temperature} °C; {'; '.join(module.flags) or 'no flag'}"


def _beyond(values: dict[str, float], limits: nic.Limits | None, what: str) -> tuple[list[str], list[str]]:
    """What lies beyond a module's own thresholds of alarm, and of warning only."""
    alarms: list[str] = []
    warnings: list[str] = []
    # A module that was not told a threshold holds zeros there: high is not above low then.
    if limits is None or limits.high_alarm <= limits.low_alarm:
        return alarms, warnings
    for channel, value in values.items():
        if not limits.low_alarm <= value <= limits.high_alarm:
            alarms.append(f"{what}{channel} {value:g}")
        elif limits.high_warning > limits.low_warning and not limits.low_warning <= value <= limits.high_warning:
            warnings.append(f"{what}{channel} {value:g}")
    return alarms, warnings


@node_check(
    "rdma.optics",
    title=Text("Transceivers are within their own limits", "光模块各项指标在自身门限内"),
    method=Text(
        "ethtool -m DEV: power received and sent, bias, temperature, alarms",
        "ethtool -m DEV：收发光功率、偏置电流、温度与告警",
    ),
    criterion=Text(
        "nothing beyond the module's own alarm thresholds, light received; beyond those of warning is a warning",
        "不超出模块自身的告警门限且无失光；超出预警门限则告警",
    ),
    suggestion=Text(
        "low power received: clean the connectors, then replace the fibre, then the module at the far end; low power"
        " sent or odd bias: replace this module; hot: look at the air flow",
        "收光偏低：清洁端面，依次更换光纤、对端光模块；发光偏低或偏置异常：更换本端光模块；过热：检查风道",
    ),
    reads=(*READS, MODULES),
    severity=Severity.MAJOR,
    action=Action.CONTACT_VENDOR,
    needs=("ethtool", "root"),
    scope="rdma",
)
def optics(facts: FactView) -> Outcome:
    found = modules(facts)
    bad: list[str] = []
    mild: list[str] = []
    for name, m in found.items():
        if m.copper:
            continue
        if m.receive_limits is None:
            raise NotKnown("unsupported", Text("{p} has no thresholds of its own", "{p} 的光模块没有门限").fill(p=name))
        temperature = {} if m.temperature is None else {"": m.temperature}
        for values, limits, what in (
            (m.receive, m.receive_limits, "rx"),
            (m.send, m.send_limits, "tx"),
            (m.bias, m.bias_limits, "bias"),
            (temperature, m.temperature_limits, "temperature"),
        ):
            alarms, warnings = _beyond(values, limits, what)
            bad += [f"{name} {text}" for text in alarms]
            mild += [f"{name} {text}" for text in warnings]
        for flag in m.flags:
            (mild if " warning" in flag else bad).append(f"{name} {flag}")
    if bad or mild:
        return failed(named(bad)) if bad else warned(named(mild))
    lowest = min(p for m in found.values() for p in m.receive.values())
    return passed(f"{sum(not m.copper for m in found.values())} / {len(found)}, rx ≥ {lowest:g} dBm")


# The IBTA and IEEE 802.3 want 1e-12 of what leaves error correction; ibdiagnet's threshold is the same.
BER_EFFECTIVE = 1e-12
# Oracle's health check of RoCE NICs: raw BER from here on calls for a look at the cable.
BER_RAW = 1e-7
LINK = Each("mlxlink", "-d", "{}", "-c", over="sys/class/infiniband/*", timeout=15.0)


@node_check(
    "rdma.bit_errors",
    title=Text("Bit error rate of RDMA links", "RDMA 链路误码率"),
    method=Text(
        "mlxlink -d DEV -c: Effective, Symbol and Raw Physical BER, Recommendation",
        "mlxlink -d DEV -c：Effective、Symbol、Raw Physical BER 与 Recommendation",
    ),
    criterion=Text(
        "after error correction at most {e:g}; raw above {r:g}, or a recommendation, is a warning",
        "纠错后不超过 {e:g}；原始误码率高于 {r:g} 或给出建议则告警",
    ).fill(e=BER_EFFECTIVE, r=BER_RAW),
    suggestion=Text(
        "clean or replace the cable or transceiver; mlxlink -d DEV -m -e tells of the module and the eye",
        "清洁或更换线缆与光模块；用 mlxlink -d DEV -m -e 查看模块与眼图",
    ),
    reads=(*READS, LINK),
    severity=Severity.MAJOR,
    action=Action.CONTACT_VENDOR,
    needs=("mlxlink", "root"),
    scope="rdma",
    tool_optional=True,
)
def bit_error_rate(facts: FactView) -> Outcome:
    found = [p for p in hardware(in_use(facts)) if p.device.hca_type.startswith("MT") and not p.device.virtual_function]
    if not found:
        raise DoesNotApply(Text("only of ConnectX and BlueField NICs", "仅适用于 ConnectX 与 BlueField 网卡"))
    told = answers(facts, LINK, found, nic.bit_errors, of=lambda p: p.device.name)
    facts.cite(
        LINK, "\n".join(f"{name} {' '.join(f'{k} {v}' for k, v in b._asdict().items())}" for name, b in told.items())
    )
    bad = [
        f"{name} {worst:g}" for name, b in told.items() if (worst := max(b.effective, b.symbol or 0.0)) > BER_EFFECTIVE
    ]
    if bad:
        return failed(named(bad))
    mild = [f"{name} raw {b.raw:g}" for name, b in told.items() if b.raw > BER_RAW]
    mild += [f"{name}: {b.recommendation[:60]}" for name, b in told.items() if b.recommendation != nic.CLEAN]
    if mild:
        return warned(named(mild))
    return passed(f"{len(told)} ports, raw ≤ {max(b.raw for b in told.values()):.1e}")


@configurable_check(
    "optics.receive_power",
    title=Text("Optical power received", "接收光功率"),
    method=Text(
        "ethtool -m DEV: the lowest channel of each RDMA port, in dBm (where.name picks ports)",
        "ethtool -m DEV：各 RDMA 端口最低通道的值，单位 dBm（where.name 可限定）",
    ),
    suggestion=Text(
        "clean the connectors, then replace the fibre, then the module at the far end",
        "清洁端面，依次更换光纤与对端光模块",
    ),
    reads=(*READS, MODULES),
    unit="1",
    needs=("ethtool", "root"),
    scope="rdma",
)
def receive_power(facts: FactView) -> dict[str, float]:
    return {name: min(m.receive.values()) for name, m in modules(facts).items() if m.receive}
