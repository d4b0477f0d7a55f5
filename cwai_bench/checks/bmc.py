"""What the baseboard management controller (BMC) has logged of fans, power supplies, memory, processors and NPUs."""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple

from cwai_bench.checks import (
    Command,
    DoesNotApply,
    FactView,
    File,
    NotKnown,
    Outcome,
    failed,
    node_check,
    parsed,
    passed,
    warned,
)
from cwai_bench.model import Action, ReasonCode, Severity
from cwai_bench.readers.host import BmcEvent, event_log, huawei_event_log
from cwai_bench.text import Text

LAST = 128
"""Entries asked for: each takes a BMC milliseconds, and it keeps thousands."""
IPMITOOL = Command("ipmitool", "sel", "elist", "last", str(LAST), timeout=20.0)
IPMCGET = Command("ipmcget", "-d", "sel", "-v", "list", timeout=10.0)
BMC = File("sys/devices/platform/ipmi_bmc.*/firmware_revision")
WINDOW = 7 * 86400.0
EMPTY = "SEL has no entries"


class Known(NamedTuple):
    """``kind``: ``fault`` (FAIL) or ``watch`` (WARN)."""

    kind: Literal["fault", "watch"]
    action: Action
    what: str = ""


# Intelligent Platform Management Interface Specification 2.0, tables 42-2 (generic) and 42-3 (by type of sensor), in
# the words of ipmitool (ipmi_sel.h). Looked for at the beginning of what an entry says; the first that fits counts.
EVENTS: dict[str, Known] = {
    "Uncorrectable ECC": Known("fault", Action.CONTACT_VENDOR),
    "Correctable ECC": Known("watch", Action.MONITOR),
    "IERR": Known("fault", Action.REBOOT),
    "Thermal Trip": Known("fault", Action.ISOLATE),
    "Uncorrectable machine check exception": Known("fault", Action.REBOOT),
    "Correctable machine check error": Known("watch", Action.MONITOR),
    "FRB": Known("fault", Action.REBOOT),
    "Configuration Error": Known("fault", Action.FIX_CONFIG),
    "Throttled": Known("watch", Action.MONITOR),
    "Bus Fatal Error": Known("fault", Action.CONTACT_VENDOR),
    "Bus Uncorrectable error": Known("fault", Action.CONTACT_VENDOR),
    "Bus Correctable error": Known("watch", Action.MONITOR),
    "PCI SERR": Known("fault", Action.CONTACT_VENDOR),
    "PCI PERR": Known("fault", Action.CONTACT_VENDOR),
    "Failure detected": Known("fault", Action.CONTACT_VENDOR),
    "Predictive failure": Known("watch", Action.CONTACT_VENDOR),
    "Power Supply AC lost": Known("watch", Action.FIX_CONFIG),
    "AC lost": Known("watch", Action.MONITOR),
    "Soft-power control failure": Known("fault", Action.CONTACT_VENDOR),
    "Drive Fault": Known("fault", Action.CONTACT_VENDOR),
    "Non-Redundant: Insufficient Resources": Known("fault", Action.CONTACT_VENDOR),
    "Non-Redundant": Known("watch", Action.CONTACT_VENDOR),
    "Redundancy Lost": Known("watch", Action.CONTACT_VENDOR),
    "Redundancy Degraded": Known("watch", Action.CONTACT_VENDOR),
    "Upper Critical going high": Known("fault", Action.ISOLATE),
    "Upper Non-recoverable going high": Known("fault", Action.ISOLATE),
    "Lower Critical going low": Known("fault", Action.ISOLATE),
    "Lower Non-recoverable going low": Known("fault", Action.ISOLATE),
    "Upper Non-critical going high": Known("watch", Action.MONITOR),
    "Lower Non-critical going low": Known("watch", Action.MONITOR),
    "Transition to Critical": Known("fault", Action.CONTACT_VENDOR),
    "Transition to Non-recoverable": Known("fault", Action.CONTACT_VENDOR),
    "Transition to Non-critical from OK": Known("watch", Action.MONITOR),
    "Run-time critical stop": Known("watch", Action.REBOOT),
}

# Ascend/mind-cluster, docs of the fault diagnosis toolkit, "BMC alarm codes": description and what to do.
CODES: dict[str, Known] = {
    "0x80e01801": Known("fault", Action.RESET, "HBM multi-bit ECC: run the HBM stress test"),
    "0x80e18402": Known("fault", Action.CONTACT_VENDOR, "HBM multi-bit ECC, 64 rows isolated: replace the NPU"),
    "0x80cb800a": Known("watch", Action.RESET, "AIV operator timed out, NPU reset: run the AI Core stress test"),
    "0x80cb8009": Known("watch", Action.RESET, "AIV bus access error: run the AI Core stress test"),
    "0x56000003": Known("fault", Action.ISOLATE, "NPU health alarm: temperature, then address error or leak"),
    "0x56000005": Known("fault", Action.ISOLATE, "NPU connection lost"),
    "0x56000009": Known("fault", Action.ISOLATE, "NPU shut down, too hot"),
    "0x2c000007": Known(
        "fault", Action.CONTACT_VENDOR, "AI module, system or NPU lost power: power-cycle, then replace"
    ),
    "0x2c00002b": Known("fault", Action.CONTACT_VENDOR, "power-on timed out: external power, re-plug, then replace"),
    "0x5d00001d": Known("fault", Action.CONTACT_VENDOR, "54 V power-on timed out, or NPU lost power"),
    "0x5d00001f": Known("fault", Action.CONTACT_VENDOR, "NPU lost power: power-cycle, then replace the module"),
    "0x5d000005": Known("fault", Action.CONTACT_VENDOR, "power supply too hot"),
    "0x12000023": Known("fault", Action.ISOLATE, "liquid cooling leaks"),
    "0x120000c3": Known("fault", Action.CONTACT_VENDOR, "liquid cooling: pump absent"),
    "0x120000c7": Known("fault", Action.CONTACT_VENDOR, "liquid cooling: pump speed"),
    "0x120000c9": Known("fault", Action.CONTACT_VENDOR, "liquid cooling: pump failed"),
    "0x04000005": Known("fault", Action.CONTACT_VENDOR, "fans: redundancy lost"),
    "0x04000007": Known("watch", Action.CONTACT_VENDOR, "fan speed deviates"),
    "0x18000003": Known("fault", Action.CONTACT_VENDOR, "fan backplane: power"),
    "0x1800000d": Known("watch", Action.CONTACT_VENDOR, "fan backplane: self test"),
}


def _known(event: BmcEvent) -> Known | None:
    if event.code:
        return CODES.get(event.code)
    return next((known for start, known in EVENTS.items() if event.what.startswith(start)), None)


def _standing(events: list[BmcEvent]) -> list[BmcEvent]:
    """Those that began and did not end since, in the order of the log."""
    found: dict[tuple[str, str, str], list[BmcEvent]] = {}
    for event in events:
        key = (event.sensor, event.what, event.code)
        if event.asserted:
            found.setdefault(key, []).append(event)
        else:
            found.pop(key, None)
    return [event for same in found.values() for event in same]


def _starts(kind: str) -> str:
    return ", ".join(start for start, known in EVENTS.items() if known.kind == kind)


@node_check(
    "bmc.events",
    title=Text("The BMC logged no hardware fault", "BMC 未记录硬件故障"),
    method=Text(
        f"{IPMITOOL.key.removeprefix('$ ')}; {IPMCGET.key.removeprefix('$ ')} where Huawei's tool is here",
        f"{IPMITOOL.key.removeprefix('$ ')}；有华为工具时使用 {IPMCGET.key.removeprefix('$ ')}",
    ),
    criterion=Text(
        "within {d:g} days none of these began and did not end: {f}, or Huawei's codes {c}; these are a warning: {w},"
        " {v}",
        "最近 {d:g} 天内无以下未恢复的事件：{f}，或华为事件码 {c}；以下则告警：{w}、{v}",
    ).fill(
        d=WINDOW / 86400,
        f=_starts("fault"),
        c=", ".join(code for code, known in CODES.items() if known.kind == "fault"),
        w=_starts("watch"),
        v=", ".join(code for code, known in CODES.items() if known.kind == "watch"),
    ),
    suggestion=Text(
        "do what stands beside the event; the entry names the part (ipmitool sel get ID); clear the log after the"
        " repair (ipmitool sel clear)",
        "按事件旁的建议处理；用 ipmitool sel get ID 查看对应部件；维修后清除日志（ipmitool sel clear）",
    ),
    reads=(BMC, IPMITOOL, IPMCGET),
    severity=Severity.MAJOR,
    action=Action.CONTACT_VENDOR,
    needs=("ipmitool", "root"),
    tool_optional=True,
)
def bmc_events(facts: FactView) -> Outcome:
    source, events = _log(facts)
    standing = _standing(events)
    facts.cite(
        source,
        "\n".join(f"{e.sensor} {e.code} {e.what}".strip() for e in standing) or f"{len(events)} entries, none stands",
    )
    telling = [(event, known) for event in standing if (known := _known(event)) is not None]
    if not telling:  # whenever it was: nodes read at different times are alike in that
        return passed(f"0 / {len(events)}")
    now = facts.taken
    # What a BMC logs before it has a time came with the start of that which follows.
    recent = [(e, known) for e, known in telling if e.when is None or now - e.when <= WINDOW]
    counted = Counter((e.sensor, e.what, e.code) for e, _ in recent)
    by_kind: dict[str, list[str]] = {"fault": [], "watch": []}
    todo: dict[str, None] = {}
    for event, known in {(e.sensor, e.what, e.code): (e, known) for e, known in recent}.values():
        named = f"{event.code or event.sensor} {known.what or event.what}"[:100]
        by_kind[known.kind].append(f"{named} × {counted[event.sensor, event.what, event.code]}")
        todo[f"{event.code or event.what.split(' (')[0]}: {known.action.value}"] = None
    facts.cite(
        source,
        "\n".join(f"{e.sensor} {e.code} {e.what}".strip() for e, _ in recent) or f"{len(events)} entries, none recent",
    )
    observed = ", ".join((by_kind["fault"] + by_kind["watch"])[:8])
    detail = Text("; ".join(todo), "；".join(todo)) if todo else None
    if by_kind["fault"]:
        return failed(observed, detail)
    return warned(observed, detail) if by_kind["watch"] else passed(f"0 / {len(events)}")


def _log(facts: FactView) -> tuple[Command, list[BmcEvent]]:
    """The event log, and which command told it."""
    bmc = facts.glob(BMC.path)
    if not facts.absent(IPMCGET.key):
        reading = facts.command(*IPMCGET.argv)
        if reading.exit_code == 0:
            return IPMCGET, parsed(huawei_event_log, reading.text, "ipmcget")
    elif not bmc:
        raise DoesNotApply(Text("no BMC is seen from here", "此处看不到 BMC"))
    reading = facts.command(*IPMITOOL.argv)
    said = " ".join(reading.detail.split())[:200]
    if reading.exit_code != 0:
        # /dev/ipmi0 is root's.
        code: ReasonCode = "permission" if "Permission denied" in said else "error"
        raise NotKnown(code, Text("ipmitool: {e}", "ipmitool：{e}").fill(e=said or reading.exit_code or "?"))
    if not reading.text.strip() and EMPTY not in said:
        raise NotKnown("parse", Text("ipmitool said nothing", "ipmitool 没有输出"))
    text = "" if EMPTY in reading.text else reading.text
    return IPMITOOL, parsed(event_log, text, "ipmitool sel elist")
