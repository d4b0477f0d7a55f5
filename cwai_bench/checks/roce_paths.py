"""RoCE: whether the rails reach anybody with packets of their size, and are let into the fabric at all."""

from __future__ import annotations

from cwai_bench.checks import DoesNotApply, FactView, NotKnown, Outcome, failed, node_check, parsed, passed, warned
from cwai_bench.checks.rdma import READS, named
from cwai_bench.checks.roce import NICS, interface, roce_rails
from cwai_bench.checks.services import PS
from cwai_bench.model import Action, ReasonCode, Severity
from cwai_bench.readers import nic
from cwai_bench.readers.host import processes
from cwai_bench.sources import Call, Each, RailPaths
from cwai_bench.text import Text

PATHS = Call("rail_paths", timeout=20.0)
HEADERS = 28


@node_check(
    "roce.path_mtu",
    title=Text("Packets of the MTU pass the fabric on every rail", "各轨道端到端 MTU"),
    method=Text(
        "ping -M do -s (MTU - {h}) -I DEV to a neighbour of the rail (/proc/net/arp), else to its gateway, after one of"
        " 56 bytes",
        "先 ping 56 字节，再 ping -M do -s (MTU - {h}) -I DEV，目标为该轨道的邻居（/proc/net/arp），无邻居时为其网关",
    ).fill(h=HEADERS),
    criterion=Text(
        "who answers a small packet answers one of the MTU (a gateway that does not is a warning: it may not care to)",
        "能应答小包的目标也能应答 MTU 大小的包（仅网关不应答则告警，网关可能不处理大包）",
    ),
    suggestion=Text(
        "the switch ports, or the peer, have a smaller MTU: set them to at least that of the rail and 42 bytes more, or"
        " ip link set DEV mtu lower on all nodes",
        "交换机端口或对端的 MTU 偏小：将其设为不小于轨道 MTU 加 42 字节，或在所有节点统一调小 ip link set DEV mtu",
    ),
    reads=(*READS, PATHS),
    severity=Severity.MAJOR,
    needs=("ping",),
    scope="roce",
    tool_optional=True,
)
def path_mtu(facts: FactView) -> Outcome:
    found = roce_rails(facts)
    told = {r.interface: r for r in facts.call(PATHS.name, RailPaths).rails}
    rails = {p.name: told.get(interface(p)) for p in found}
    facts.cite(
        PATHS,
        "\n".join(
            f"{name} {r.interface} mtu {r.mtu} → {r.target or '-'} small={r.small} full={r.full} {r.error}".rstrip()
            for name, r in rails.items()
            if r is not None
        ),
    )
    for gateway, verdict in ((False, failed), (True, warned)):
        short = [n for n, r in rails.items() if r and r.small and not r.full and not r.error and r.gateway is gateway]
        if short:
            return verdict(named(f"{n} mtu {r.mtu} → {r.target}" for n in short if (r := rails[n])))
    if refused := [r.error for r in rails.values() if r and r.error]:
        code: ReasonCode = "missing_tool" if "No such file" in refused[0] else "error"
        raise NotKnown(code, Text("ping: {e}", "ping：{e}").fill(e=refused[0][:200]))
    if not any(r and r.target for r in rails.values()):
        raise DoesNotApply(
            Text(
                "no rail knows a neighbour or a gateway yet: there is nobody to ask",
                "各轨道尚无邻居或网关，没有可探测的目标",
            )
        )
    if silent := [n for n, r in rails.items() if not r or not r.small]:
        raise NotKnown(
            "missing_source",
            Text("nobody known on {r} answers a small packet", "{r} 上没有目标应答小包").fill(r=named(silent)),
        )
    return passed(f"{len(rails)} / {len(rails)}")


WPA = Each("wpa_cli", "-i", "{}", "status", over=NICS, timeout=5.0)
DAEMON = "wpa_supplicant"
AUTHORIZED, NO_SUPPLICANT = "Authorized", "Failed to connect to"


@node_check(
    "roce.port_access",
    title=Text("The rails are let in by 802.1X", "轨道已通过 802.1X 认证"),
    method=Text(
        "wpa_cli -i DEV status of the rails, where wpa_supplicant runs",
        "运行 wpa_supplicant 时，对各轨道执行 wpa_cli -i DEV status",
    ),
    criterion=Text(
        "suppPortStatus is Authorized on each rail that wpa_supplicant looks after",
        "wpa_supplicant 管理的每条轨道 suppPortStatus 均为 Authorized",
    ),
    suggestion=Text(
        "restart wpa_supplicant of that rail; check its certificate and the switch port's log",
        "重启该轨道的 wpa_supplicant；检查证书与交换机端口日志",
    ),
    reads=(*READS, PS, WPA),
    severity=Severity.CRITICAL,
    action=Action.FIX_CONFIG,
    needs=("wpa_cli",),
    scope="roce",
)
def port_access(facts: FactView) -> Outcome:
    found = roce_rails(facts)
    running = parsed(processes, facts.command(*PS.argv).text, "ps")
    facts.cite(PS, "\n".join(p.name for p in running if p.name.startswith(DAEMON)) or f"no {DAEMON}")
    if not any(p.name.startswith(DAEMON) for p in running):
        raise DoesNotApply(
            Text("802.1X is not in use: no wpa_supplicant runs", "未使用 802.1X：没有运行 wpa_supplicant")
        )
    said = facts.each(*WPA.argv)
    states: dict[str, nic.Supplicant] = {}
    for p in found:
        reading = said.get(interface(p))
        if reading is None:
            raise NotKnown("missing_source", Text("{p} was not asked", "未查询 {p}").fill(p=p.name))
        if reading.exit_code:
            if NO_SUPPLICANT in reading.detail + reading.text:
                continue
            raise NotKnown(
                "error",
                Text("wpa_cli, {p}: {e}", "wpa_cli，{p}：{e}").fill(p=p.name, e=reading.detail.strip()[:160] or "?"),
            )
        states[p.name] = parsed(nic.supplicant, reading.text, f"wpa_cli -i {interface(p)} status")
    facts.cite(WPA, "\n".join(f"{name} {s.port}, {s.state}, EAP {s.method}" for name, s in states.items()) or "-")
    if not states:
        raise DoesNotApply(Text("no rail is looked after by wpa_supplicant", "没有由 wpa_supplicant 管理的轨道"))
    out = [f"{name} {s.port} ({s.state})" for name, s in states.items() if s.port != AUTHORIZED]
    # A rail without a supplicant beside others that have one is one that was forgotten.
    lone = [p.name for p in found if p.name not in states]
    observed = f"{len(states) - len(out)} / {len(found)}"
    if out:
        return failed(f"{observed}; {named(out)}")
    return warned(f"{observed}; {named(lone)}") if lone else passed(observed)
