"""What others have found out about the RDMA fabric: OFED's self test, libfabric's view of EFA, UFM's log of events."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime

from cwai_bench.checks import DoesNotApply, FactView, NotKnown, Outcome, failed, node_check, parsed, passed, warned
from cwai_bench.checks.rdma import PCI, RDMA, READS, hardware, named, ports
from cwai_bench.checks.roce import ran_well
from cwai_bench.model import Action, Severity
from cwai_bench.readers import nic
from cwai_bench.sources import Call, Command, Host, Pci, SteadyRdma
from cwai_bench.text import Text

SELF_TEST = Command("hca_self_test.ofed", timeout=30.0)
GRAVE = ("PCI Device Check", "Host Driver Initialization", "Host Driver RPM Check", "Firmware Check")
"""What of the self test is about the NIC and its driver; the rest counts errors since boot and lines of the log."""


@node_check(
    "rdma.self_test",
    title=Text("OFED's self test of the NICs passes", "OFED 网卡自检通过"),
    method=Text("hca_self_test.ofed", "hca_self_test.ofed"),
    criterion=Text(
        "no FAIL; one of the error counters or of the kernel log alone is a warning",
        "无 FAIL；仅错误计数或内核日志检查失败则告警",
    ),
    suggestion=Text(
        "its output names the reason below the line that failed; install the driver again, or update the firmware",
        "输出中失败行的下方给出原因；重装驱动或升级固件",
    ),
    reads=(*READS, SELF_TEST),
    severity=Severity.MAJOR,
    needs=("hca_self_test.ofed", "root"),
    scope="rdma",
    tool_optional=True,
)
def self_test(facts: FactView) -> Outcome:
    found = hardware(ports(facts))
    if not any(p.device.hca_type.startswith("MT") for p in found):
        raise DoesNotApply(Text("only of ConnectX and BlueField NICs", "仅适用于 ConnectX 与 BlueField 网卡"))
    reading = facts.command(*SELF_TEST.argv)
    ran_well(reading, SELF_TEST.argv[0])
    told = parsed(nic.self_test, reading.text, SELF_TEST.argv[0])
    bad = [name for name, value in told.items() if value.startswith("FAIL")]
    if any(name.startswith(GRAVE) for name in bad):
        return failed(named(bad))
    return warned(named(bad)) if bad else passed(f"{sum(v == 'PASS' for v in told.values())} PASS")


FI_INFO = Command("fi_info", "-p", "efa", "-t", "FI_EP_RDM", timeout=10.0)
AMAZON = re.compile(r"1d0f:efa[0-9a-f]")
"""PCI ids of the Elastic Fabric Adapter (efa_main.c)."""


@node_check(
    "rdma.efa",
    title=Text("libfabric finds every EFA device", "libfabric 能识别全部 EFA 设备"),
    method=Text(f"{FI_INFO.key.removeprefix('$ ')}: domains", f"{FI_INFO.key.removeprefix('$ ')} 的 domain"),
    criterion=Text(
        "a domain for each EFA device in /sys/bus/pci/devices",
        "/sys/bus/pci/devices 中的每个 EFA 设备均有对应的 domain",
    ),
    suggestion=Text(
        "modprobe efa; install aws-efa-installer again; if a device stays away, stop and start the instance, or have it"
        " replaced",
        "modprobe efa；重装 aws-efa-installer；若设备仍缺失，停止并重新启动实例或更换实例",
    ),
    reads=(*READS, FI_INFO),
    severity=Severity.CRITICAL,
    action=Action.ISOLATE,
    needs=("fi_info",),
    scope="rdma",
)
def efa(facts: FactView) -> Outcome:
    there = [d.address for d in facts.call("pci", Pci).devices if AMAZON.fullmatch(d.model)]
    facts.cite(PCI, "\n".join(there) or "(no EFA device)")
    if not there:
        raise DoesNotApply(Text("no EFA device here", "没有 EFA 设备"))
    names = {d.address: d.name for d in facts.call("rdma", SteadyRdma).devices}
    facts.cite(RDMA, "\n".join(f"{address} {name}" for address, name in names.items() if address in there) or "-")
    reading = facts.command(*FI_INFO.argv)
    # fi_getinfo: -61 (No data available): the provider found no device at all.
    told = [] if "-61" in reading.detail else parsed(nic.domains, _said(reading.text, reading.exit_code), "fi_info")
    missing = [a for a in there if names.get(a) not in told]
    observed = f"{len(there) - len(missing)} / {len(there)}"
    lost = named(f"{a} ({names[a]})" if a in names else a for a in missing)
    return failed(f"{observed}; {lost}") if missing else passed(observed)


def _said(text: str, exit_code: int | None) -> str:
    if exit_code:
        raise NotKnown("error", Text("fi_info ended with {c}", "fi_info 退出码为 {c}").fill(c=exit_code))
    return text


UFM = Command("tail", "-n", "5000", "/opt/ufm/log/event.log")
WINDOW = 24 * 3600.0
RECURRING = 3
# The codes that imbue-ai/cluster-health acts on.
CODES = {
    110: "symbol errors",
    112: "link downed",
    113: "receive errors",
    115: "switch relay errors",
    116: "transmit discards",
    329: "link went down",
    394: "switch critical failure",
    702: "port unhealthy",
    907: "switch down",
    917: "symbol bit error rate",
    918: "symbol bit error rate",
}


@node_check(
    "rdma.ufm",
    title=Text("UFM saw no port in trouble again and again", "UFM 未发现反复异常的端口"),
    method=Text(
        "/opt/ufm/log/event.log (its last 5000 lines), where UFM runs here",
        "本机运行 UFM 时读取 /opt/ufm/log/event.log（最后 5000 行）",
    ),
    criterion=Text(
        "in the last {h:g} h fewer than {n} events of one port with the codes {c}; else a warning",
        "最近 {h:g} 小时内同一端口的下列事件少于 {n} 次：{c}；否则告警",
    ).fill(h=WINDOW / 3600, n=RECURRING, c=", ".join(f"{code} ({what})" for code, what in CODES.items())),
    suggestion=Text(
        "re-seat, clean or replace the cable of that port; disable the port until then",
        "重新插拔、清洁或更换该端口的线缆；在此之前可先禁用该端口",
    ),
    reads=(UFM, Call("host")),
    severity=Severity.MAJOR,
    action=Action.MONITOR,
    scope="rdma",
)
def ufm(facts: FactView) -> Outcome:
    reading = facts.command(*UFM.argv)
    if reading.exit_code and "No such file" in reading.detail:
        raise DoesNotApply(Text("UFM does not run here", "本机未运行 UFM"))
    ran_well(reading, UFM.key.removeprefix("$ "))
    events = parsed(nic.ufm_events, reading.text, "/opt/ufm/log/event.log")
    host = facts.call("host", Host)
    facts.cite(Call("host"), f"time zone {host.timezone}")
    zone = host.timezone.split()[-1:] or ["+0000"]

    def age(event: nic.UfmEvent) -> float:
        try:
            return host.taken - datetime.strptime(f"{event.when} {zone[0]}", "%Y-%m-%d %H:%M:%S %z").timestamp()
        except (ValueError, OverflowError):
            raise NotKnown("parse", Text("no time: {t}", "时间无法解析：{t}").fill(t=event.when)) from None

    recent = [e for e in events if e.code in CODES and age(e) <= WINDOW]
    counts = Counter((e.about, e.code) for e in recent)
    often = {key: n for key, n in counts.most_common() if n >= RECURRING}
    facts.cite(
        UFM, "\n".join(f"{e.when} {e.code} {e.about}: {e.message}" for e in recent[-50:]) or f"{len(events)} events"
    )
    if often:
        return warned(named(f"{about}: {CODES[code]} × {n}" for (about, code), n in often.items()))
    return passed(f"{len(recent)} / {len(events)}")
