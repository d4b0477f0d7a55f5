"""Items of RDMA NICs and of the RoCE fabric, on their home nodes and on such with a fault planted in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from cwai_bench.checks import CHECKS, ConsistencyCheck, NodeCheck
from cwai_bench.checks.rdma import DEVINFO, INSTALLED, OFED, RDMA
from cwai_bench.checks.rdma_optics import LINK, MODULES
from cwai_bench.checks.rdma_tools import FI_INFO, SELF_TEST, UFM
from cwai_bench.checks.roce import LLDP, PAUSE, QOS, STATISTICS
from cwai_bench.checks.roce_paths import WPA
from cwai_bench.checks.services import PS
from cwai_bench.config import Criteria, Criterion, Quantity
from cwai_bench.discover.recorded import slug
from cwai_bench.judge import check_facts
from cwai_bench.model import Facts, Status, Verdict
from cwai_bench.port_counters import growth
from cwai_bench.sources import Call, Command, Each, Source
from tests.unit.conftest import Planted, home_of

PASS, WARN, FAIL, UNKNOWN, SKIP = Status.PASS, Status.WARN, Status.FAIL, Status.UNKNOWN, Status.SKIP
SCOPES = ("rdma", "roce")
OURS = [c.info.id for c in CHECKS.values() if c.info.scope in SCOPES]
NODE_ITEMS = [id for id in OURS if isinstance(CHECKS[id], NodeCheck)]
SAME = [id for id in OURS if isinstance(CHECKS[id], ConsistencyCheck)]
IB, ROCE, AMAZON, UFM_HOST = "good", "a800_roce", "efa", "ufm"
Plant = Callable[[Planted], Planted]


class Case(NamedTuple):
    """``says``: what the observed value, the detail or the reason code of ``check`` must hold."""

    node: str
    check: str
    plant: Plant
    status: Status
    says: str


def judged(facts: Facts, check: str) -> Verdict:
    (verdict,) = check_facts([facts], [check])
    return verdict


def answer(node: Planted, name: str) -> Any:
    return msgspec.json.decode((node.root / f"calls/{name}.json").read_bytes())


def rewrite(node: Planted, name: str, value: object) -> Planted:
    return node.write(f"calls/{name}.json", msgspec.json.encode(value).decode())


def device(*names: str, **changes: object) -> Plant:
    """Change fields of RDMA devices."""

    def plant(node: Planted) -> Planted:
        found = answer(node, "rdma")
        for d in found["devices"]:
            if d["name"] in names:
                assert set(changes) <= set(d)
                d.update(changes)
        return rewrite(node, "rdma", found)

    return plant


def port(*names: str, **changes: object) -> Plant:
    """Change fields of the only port of RDMA devices."""

    def plant(node: Planted) -> Planted:
        found = answer(node, "rdma")
        hit = [d["ports"][0] for d in found["devices"] if d["name"] in names]
        assert len(hit) == len(names)
        for p in hit:
            assert set(changes) <= set(p)
            p.update(changes)
        return rewrite(node, "rdma", found)

    return plant


def counter(name: str, before: int, after: int, *names: str) -> Plant:
    def plant(node: Planted) -> Planted:
        found = answer(node, "rdma")
        for d in found["devices"]:
            if d["name"] in (names or ("mlx5_3",)):
                d["ports"][0]["before"][name] = before
                d["ports"][0]["after"][name] = after
        return rewrite(node, "rdma", found)

    return plant


def gids(name: str, *rows: list[object]) -> Plant:
    return port(name, gids=list(rows))


def without(name: str) -> Plant:
    """A device that is not there any more."""

    def plant(node: Planted) -> Planted:
        found = answer(node, "rdma")
        found["devices"] = [d for d in found["devices"] if d["name"] != name]
        return rewrite(node, "rdma", found)

    return plant


def said(command: Command, old: str, new: str) -> Plant:
    """Replace in what a command said."""
    return lambda n: n.replace(f"commands/{slug(command)}/stdout", old, new)


def both(*plants: Plant) -> Plant:
    def plant(node: Planted) -> Planted:
        for p in plants:
            p(node)
        return node

    return plant


def refuse(source: Source, status: str = "denied", detail: str = "Permission denied") -> Plant:
    return lambda n: n.refuse(source, status, detail)


def fails(command: Command, stderr: str) -> Plant:
    return lambda n: n.command(command, "", 1, stderr)


IBN, RAIL = "ibp74s0", "ens14np0"
"""The interface of mlx5_3 on either node."""
LL = ["fe80:0000:0000:0000:0ac0:ebff:fe4a:1030", "RoCE v2", RAIL]
V4 = ["0000:0000:0000:0000:0000:ffff:0a67:010b", "RoCE v2", RAIL]
ALL = tuple(f"mlx5_{i}" for i in range(8))
EVERY = tuple(f"mlx5_{i}" for i in range(10))
MTU_OF_3 = "active_mtu:\t\t4096 (5)\n\t\t\tsm_lid:\t\t\t1\n\t\t\tport_lid:\t\t104"
PFC_ON, PFC_OFF = "enabled     0   0   0   1", "enabled     0   0   0   0"


def qos(old: str, new: str) -> Plant:
    return said(QOS.command(RAIL), old, new)


def counted(old: str, new: str) -> Plant:
    return said(STATISTICS.command(RAIL), old, new)


def optics(old: str, new: str) -> Plant:
    return said(MODULES.command(IBN), old, new)


def conf(name: str, value: int) -> Plant:
    return lambda n: n.write(f"proc/sys/net/ipv4/conf/all/{name}", "0\n").write(
        f"proc/sys/net/ipv4/conf/{RAIL}/{name}", f"{value}\n"
    )


def path(interface: str, **changes: object) -> Plant:
    return lambda n: n.rows("rail_paths", "rails", {"interface": interface}, **changes)


def paths(**changes: object) -> Plant:
    return lambda n: n.rows("rail_paths", "rails", {}, **changes)


def down_again(times: int) -> Plant:
    """UFM saw the link of one port go down ``times`` more."""

    def plant(node: Planted) -> Planted:
        where = f"commands/{slug(UFM)}/stdout"
        text = (node.root / where).read_text()
        (line,) = [x for x in text.splitlines() if " [329] " in x]
        again = "".join(line.replace("07:46:24", f"12:{n:02}:24") + "\n" for n in range(times))
        return node.write(where, text + again)

    return plant


def no_rails(node: Planted) -> Planted:
    return rewrite(node, "rdma", answer(node, "rdma") | {"devices": []})


CASES = [
    # devices and ports
    Case(IB, "rdma.devices", without("mlx5_3"), FAIL, "0000:4a:00.0 (mlx5_core)"),
    Case(IB, "rdma.devices", no_rails, FAIL, "0 / 10"),
    Case(IB, "rdma.devices", refuse(RDMA), UNKNOWN, "permission"),
    Case(IB, "rdma.devices", lambda n: no_rails(n).call("pci", devices=[]), SKIP, "absent"),
    Case(IB, "rdma.devices", lambda n: no_rails(n).call("container", kind="docker"), SKIP, "container"),
    Case(IB, "rdma.link", port("mlx5_3", state="DOWN", phys_state="Polling"), FAIL, "9 / 10; mlx5_3 Polling"),
    Case(IB, "rdma.link", port("mlx5_8", "mlx5_9", state="DOWN", phys_state="Polling"), WARN, "mlx5_8 Polling"),
    Case(IB, "rdma.link", port("mlx5_9", state="DOWN", phys_state="Polling"), WARN, "9 / 10; mlx5_9 Polling"),
    Case(IB, "rdma.link", port("mlx5_3", state="DOWN", phys_state="Disabled"), WARN, "mlx5_3 Disabled"),
    Case(IB, "rdma.link", port(*EVERY, state="DOWN", phys_state="Polling"), FAIL, "0 / 10"),
    Case(IB, "rdma.link", port("mlx5_3", phys_state=""), UNKNOWN, "parse"),
    Case(IB, "rdma.link", no_rails, UNKNOWN, "cause"),
    Case(IB, "rdma.state", port("mlx5_3", state="INIT"), FAIL, "mlx5_3 INIT"),
    Case(IB, "rdma.state", port(*EVERY, state="DOWN", phys_state="Polling"), UNKNOWN, "cause"),
    Case(IB, "rdma.rate", port("mlx5_3", rate="100 Gb/sec (1X NDR)"), FAIL, "mlx5_3 100 Gb/sec (1X NDR)"),
    Case(ROCE, "rdma.rate", port("mlx5_3", rate="100 Gb/sec (4X EDR)"), FAIL, "mlx5_3 100 Gb/sec (4X EDR)"),
    Case(IB, "rdma.rate", port(*ALL, rate="100 Gb/sec (1X NDR)"), FAIL, "mlx5_7"),
    Case(IB, "rdma.rate", port("mlx5_3", rate="fast"), UNKNOWN, "parse"),
    Case(IB, "rdma.firmware", device("mlx5_3", firmware="28.36.1010"), WARN, "mlx5_3"),
    Case(IB, "rdma.firmware", device("mlx5_3", firmware=""), UNKNOWN, "unsupported"),
    Case(IB, "rdma.userspace", device("mlx5_3", verbs="missing"), FAIL, "mlx5_3 missing"),
    Case(IB, "rdma.userspace", device(*EVERY, verbs="denied"), FAIL, "mlx5_0 denied"),
    Case(IB, "rdma.userspace", lambda n: n.call("rdma", connection_manager="missing"), WARN, "rdma_cm missing"),
    Case(IB, "rdma.subnet_manager", port("mlx5_3", sm_lid=0), FAIL, "mlx5_3 lid 104 sm_lid 0"),
    Case(IB, "rdma.pkey", port("mlx5_3", pkeys={"0": 0x7FFF}), FAIL, "mlx5_3"),
    Case(IB, "rdma.pkey", port("mlx5_3", pkeys={}), FAIL, "0x0000"),
    Case(IB, "rdma.pkey", port("mlx5_3", pkeys={"0": 0x7FFF, "1": 0x8123}), WARN, "mlx5_3"),
    Case(IB, "rdma.pkey", port("mlx5_3", pkeys={"0": 0x8123}), WARN, "0x8123 × 1"),
    Case(IB, "rdma.mtu", said(DEVINFO, MTU_OF_3, MTU_OF_3.replace("4096 (5)", "2048 (4)")), WARN, "mlx5_3 2048"),
    Case(IB, "rdma.mtu", said(DEVINFO, "hca_id:\tmlx5_3", "hca_id:\tmlx5_30"), UNKNOWN, "mlx5_3"),
    Case(IB, "rdma.mtu", refuse(DEVINFO, "missing", "No such file"), UNKNOWN, "missing_tool"),
    Case(IB, "rdma.driver", said(INSTALLED, "24.10-1.1.4", "25.01-0.6.0"), WARN, "24.10-1.1.4 ≠ 25.01-0.6.0"),
    Case(IB, "rdma.driver", fails(INSTALLED, "modinfo: ERROR: Module mlx5_core not found."), UNKNOWN, "parse"),
    Case(IB, "rdma.driver", lambda n: n.call("modules", versions={"nvidia": "550.127.08"}), SKIP, "absent"),
    Case(IB, "rdma.ofed", said(OFED, "24.10-1.1.4.0", "23.10-0.5.5.0"), WARN, "23.10-0.5.5.0"),
    Case(IB, "rdma.ofed", refuse(OFED, "missing", "No such file"), UNKNOWN, "missing_tool"),
    Case(
        IB,
        "rdma.affinity",
        lambda n: n.rows("pci", "devices", {"address": "0000:4a:00.0"}, behind="", numa_node=1),
        WARN,
        "7 / 8 (PCIe); 0000:49:00.0",
    ),
    Case(IB, "rdma.affinity", lambda n: n.call("container", vm="kvm"), SKIP, "VM"),
    # counters
    Case(IB, "rdma.errors", counter("symbol_error", 10, 14), FAIL, "mlx5_3 symbol_error +4"),
    Case(IB, "rdma.errors", counter("symbol_error", 5, 5), PASS, "10 ports, +0"),
    Case(IB, "rdma.errors", counter("symbol_error", 65535, 65535), WARN, "mlx5_3 symbol_error"),
    Case(IB, "rdma.errors", lambda n: n.call("rdma", looked=0.0), UNKNOWN, "parse"),
    Case(IB, "rdma.errors", port("mlx5_3", after={}), UNKNOWN, "mlx5_3"),
    Case(IB, "rdma.errors", port(*EVERY, before={}, after={}), SKIP, "unsupported"),
    Case(ROCE, "rdma.corruption", counter("rx_icrc_encapsulated", 0, 1), FAIL, "rx_icrc_encapsulated +1"),
    Case(IB, "rdma.drops", counter("port_xmit_discards", 0, 7), WARN, "port_xmit_discards +7"),
    Case(ROCE, "rdma.retries", counter("local_ack_timeout_err", 2**32 - 2, 3), WARN, "local_ack_timeout_err +5"),
    Case(ROCE, "rdma.order", counter("out_of_sequence", 0, 5000), WARN, "out_of_sequence +5000"),
    Case(ROCE, "rdma.order", counter("out_of_sequence", 0, 500), PASS, "+500"),
    Case(ROCE, "rdma.receiver", counter("rnr_nak_retry_err", 0, 300), WARN, "rnr_nak_retry_err +300"),
    Case(ROCE, "rdma.congestion", counter("np_cnp_sent", 0, 90000), WARN, "np_cnp_sent +90000"),
    Case(IB, "rdma.flaps", counter("link_downed", 1, 2), FAIL, "mlx5_3 +1"),
    Case(IB, "rdma.flaps", counter("link_downed", 200, 200), WARN, "mlx5_3 21.6/d"),
    Case(IB, "rdma.flaps", counter("link_downed", 255, 255), WARN, "mlx5_3"),
    Case(IB, "rdma.wait", counter("port_xmit_wait", 0, 9_000_000), WARN, "mlx5_3 9000000/2400"),
    # optics
    Case(
        IB,
        "rdma.optics",
        optics(
            "Rcvr signal avg optical power(Channel 2)  : 1.1900 mW / 0.76 dBm",
            "Rcvr signal avg optical power(Channel 2)  : 0.0501 mW / -13.00 dBm",
        ),
        FAIL,
        "mlx5_3 rx2 -13",
    ),
    Case(IB, "rdma.optics", optics("1.1900 mW / 0.76 dBm", "0.1585 mW / -8.00 dBm"), WARN, "rx2 -8"),
    Case(IB, "rdma.optics", optics("47.00 degrees C / 116.60", "77.00 degrees C / 170.60"), FAIL, "temperature 77"),
    Case(
        IB,
        "rdma.optics",
        optics("Laser rx power low alarm   (Channel 1)    : Off", "Laser rx power low alarm   (Channel 1)    : On"),
        FAIL,
        "Laser rx power low alarm (Channel 1)",
    ),
    Case(
        IB,
        "rdma.optics",
        optics(
            "Rx loss of signal                         : None",
            "Rx loss of signal                         : [ Yes, No, No, No ]",
        ),
        FAIL,
        "Rx loss of signal",
    ),
    Case(
        IB, "rdma.optics", fails(MODULES.command(IBN), "netlink error: Operation not permitted"), UNKNOWN, "permission"
    ),
    Case(
        IB, "rdma.optics", fails(MODULES.command(IBN), "netlink error: Invalid argument"), UNKNOWN, "Invalid argument"
    ),
    Case(IB, "rdma.bit_errors", said(LINK.command("mlx5_3"), "15E-255", "2E-10"), FAIL, "mlx5_3 2e-10"),
    Case(IB, "rdma.bit_errors", said(LINK.command("mlx5_3"), "4E-10", "4E-6"), WARN, "mlx5_3 raw 4e-06"),
    Case(
        IB,
        "rdma.bit_errors",
        said(LINK.command("mlx5_3"), "No issue was observed", "Bad signal integrity"),
        WARN,
        "Bad signal integrity",
    ),
    Case(IB, "rdma.bit_errors", refuse(LINK.command("mlx5_3"), "missing", "No such file"), UNKNOWN, "missing_tool"),
    # what other tools have found out
    Case(
        IB,
        "rdma.self_test",
        said(SELF_TEST, "Initialization ............. PASS", "Initialization ............. FAIL"),
        FAIL,
        "Host Driver Initialization",
    ),
    Case(
        IB,
        "rdma.self_test",
        said(
            SELF_TEST, "PCI Device Check ....................... PASS", "PCI Device Check ....................... FAIL"
        ),
        FAIL,
        "PCI Device Check",
    ),
    Case(
        IB,
        "rdma.self_test",
        said(
            SELF_TEST,
            "on CA #3 (HCA)...... PASS",
            "on CA #3 (HCA)...... FAIL\n    REASON: found errors in the following counters",
        ),
        WARN,
        "Error Counter Check on CA #3 (HCA)",
    ),
    Case(IB, "rdma.self_test", refuse(SELF_TEST, "missing", "No such file"), UNKNOWN, "missing_tool"),
    Case(IB, "rdma.self_test", said(SELF_TEST, "DONE", "D"), UNKNOWN, "parse"),
    Case(
        AMAZON,
        "rdma.efa",
        said(FI_INFO, "domain: rdmap144s27-rdm", "domain: rdmap1s27-rdm"),
        FAIL,
        "3 / 4; 0000:90:1b.0 (rdmap144s27)",
    ),
    Case(
        AMAZON, "rdma.efa", lambda n: n.command(FI_INFO, "", 61, "fi_getinfo: -61 (No data available)"), FAIL, "0 / 4"
    ),
    Case(AMAZON, "rdma.efa", lambda n: without("rdmap144s27")(n), FAIL, "0000:90:1b.0"),
    Case(AMAZON, "rdma.efa", fails(FI_INFO, "fi_info: error while loading shared libraries"), UNKNOWN, "ended with 1"),
    Case(AMAZON, "rdma.efa", refuse(FI_INFO, "missing", "No such file"), UNKNOWN, "missing_tool"),
    Case(IB, "rdma.efa", lambda n: n, SKIP, "absent"),
    Case(UFM_HOST, "rdma.ufm", down_again(2), WARN, "leaf07 / 17/1: link went down × 3"),
    Case(UFM_HOST, "rdma.ufm", down_again(1), PASS, "3 / 6"),
    Case(
        UFM_HOST,
        "rdma.ufm",
        both(down_again(2), lambda n: n.call("host", taken=1767225600.0 + 2 * 86400)),
        PASS,
        "0 / 7",
    ),
    Case(UFM_HOST, "rdma.ufm", lambda n: n.command(UFM, "nonsense\n"), UNKNOWN, "parse"),
    Case(UFM_HOST, "rdma.ufm", fails(UFM, "tail: cannot open: Permission denied"), UNKNOWN, "Permission denied"),
    Case(IB, "rdma.ufm", lambda n: n, SKIP, "does not run here"),
    # RoCE
    Case(ROCE, "roce.path_mtu", path(RAIL, full=False), FAIL, "mlx5_3 mtu 9000 → 10.103.1.12"),
    Case(ROCE, "roce.path_mtu", path(RAIL, full=False, gateway=True), WARN, "mlx5_3 mtu 9000"),
    Case(ROCE, "roce.path_mtu", path(RAIL, small=False, full=False), UNKNOWN, "mlx5_3"),
    Case(ROCE, "roce.path_mtu", path(RAIL, target="", small=False, full=False), UNKNOWN, "mlx5_3"),
    Case(ROCE, "roce.path_mtu", paths(target="", small=False, full=False), SKIP, "nobody to ask"),
    Case(
        ROCE,
        "roce.path_mtu",
        paths(error="ping: No such file or directory", small=False, full=False),
        UNKNOWN,
        "missing_tool",
    ),
    Case(
        ROCE,
        "roce.path_mtu",
        paths(error="ping: invalid option -- 'M'", small=False, full=False),
        UNKNOWN,
        "invalid option",
    ),
    Case(ROCE, "roce.path_mtu", lambda n: n.call("rail_paths", rails=[]), SKIP, "nobody to ask"),
    Case(
        ROCE,
        "roce.port_access",
        said(WPA.command(RAIL), "suppPortStatus=Authorized", "suppPortStatus=Unauthorized"),
        FAIL,
        "7 / 8; mlx5_3 Unauthorized",
    ),
    Case(
        ROCE,
        "roce.port_access",
        lambda n: n.command(WPA.command(RAIL), "", 255, "Failed to connect to non-global ctrl_ifname: ens14np0"),
        WARN,
        "7 / 8; mlx5_3",
    ),
    Case(ROCE, "roce.port_access", said(PS, "wpa_supplicant", "sshd"), SKIP, "no wpa_supplicant"),
    Case(ROCE, "roce.port_access", refuse(WPA.command(RAIL), "missing", "No such file"), UNKNOWN, "missing_tool"),
    Case(ROCE, "roce.port_access", lambda n: n.command(WPA.command(RAIL), "", 1, "went wrong"), UNKNOWN, "went wrong"),
    Case(ROCE, "roce.port_access", said(WPA.command(RAIL), "suppPortStatus=Authorized\n", ""), UNKNOWN, "parse"),
    Case(ROCE, "roce.address", gids("mlx5_3", [0, LL[0], "IB/RoCE v1", RAIL], [1, *LL]), FAIL, "7 / 8; mlx5_3"),
    Case(ROCE, "roce.address", gids("mlx5_3", [0, "?", "RoCE v2", RAIL]), UNKNOWN, "parse"),
    Case(ROCE, "roce.gid", gids("mlx5_3", [1, *LL], [5, *V4]), WARN, "mlx5_3"),
    Case(ROCE, "roce.gid", gids("mlx5_3", [0, V4[0], "IB/RoCE v1", RAIL]), FAIL, "mlx5_3"),
    Case(ROCE, "roce.gid", port(*ALL, gids=[[1, *LL]]), UNKNOWN, "cause"),
    Case(ROCE, "roce.gid", port(*ALL, state="DOWN", phys_state="Polling"), UNKNOWN, "cause"),
    Case(ROCE, "roce.mtu", lambda n: n.rows("network", "interfaces", {"name": RAIL}, mtu=1500), WARN, "mlx5_3"),
    Case(ROCE, "roce.mtu", lambda n: n.rows("network", "interfaces", {"name": RAIL}, mtu=4200), WARN, "4200 × 1"),
    Case(ROCE, "roce.mtu", refuse(Call("network")), UNKNOWN, "permission"),
    Case(ROCE, "roce.rp_filter", conf("rp_filter", 1), WARN, "mlx5_3"),
    Case(ROCE, "roce.rp_filter", lambda n: n.remove(f"proc/sys/net/ipv4/conf/{RAIL}"), UNKNOWN, "missing_source"),
    Case(ROCE, "roce.arp_ignore", conf("arp_ignore", 0), WARN, "mlx5_3"),
    Case(ROCE, "roce.arp_announce", conf("arp_announce", 0), WARN, "mlx5_3"),
    Case(ROCE, "roce.pfc", qos(PFC_ON, PFC_OFF), FAIL, "mlx5_3"),
    Case(
        ROCE,
        "roce.pfc",
        both(*(said(QOS.command(f"ens{11 + i}np0"), PFC_ON, PFC_OFF) for i in range(8))),
        WARN,
        "PFC -",
    ),
    Case(ROCE, "roce.pfc", refuse(QOS.command(RAIL), "missing", "No such file"), UNKNOWN, "missing_tool"),
    Case(ROCE, "roce.trust", qos("trust state: dscp", "trust state: pcp"), FAIL, "mlx5_3"),
    Case(ROCE, "roce.traffic_class", port("mlx5_3", traffic_class=""), FAIL, "mlx5_3"),
    Case(ROCE, "roce.traffic_class", port(*ALL, traffic_class=""), SKIP, "absent"),
    Case(ROCE, "roce.traffic_class", port("mlx5_3", traffic_class="Global tclass=10"), FAIL, "10 × 1"),
    Case(ROCE, "roce.dscp", port("mlx5_3", traffic_class="Global tclass=10"), FAIL, "DSCP 2 → 0"),
    Case(ROCE, "roce.dscp", qos("trust state: dscp", "trust state: pcp"), UNKNOWN, "cause"),
    Case(ROCE, "roce.ecn", lambda n: n.write(f"sys/class/net/{RAIL}/ecn/roce_rp/enable/3", "0\n"), FAIL, "mlx5_3"),
    Case(ROCE, "roce.ecn", lambda n: n.remove(f"sys/class/net/{RAIL}/ecn/roce_rp/enable/3"), UNKNOWN, "parse"),
    Case(ROCE, "roce.global_pause", said(PAUSE.command(RAIL), "RX:\t\toff", "RX:\t\ton"), WARN, "1 / 8; mlx5_3"),
    Case(ROCE, "roce.pause_frames", counted("storm_error_events: 0", "storm_error_events: 2"), FAIL, "mlx5_3 2"),
    Case(
        ROCE,
        "roce.pause_frames",
        counted("rx_prio3_pause_duration: 43000", "rx_prio3_pause_duration: 43000000000"),
        WARN,
        "mlx5_3 rx_prio3_pause 5.4 %",
    ),
    Case(ROCE, "roce.discards", counted("rx_discards_phy: 12", "rx_discards_phy: 9912345"), WARN, "mlx5_3 9912345"),
    Case(ROCE, "roce.discards", counted("rx_discards_phy: 12\n", ""), UNKNOWN, "rx_discards_phy"),
    Case(ROCE, "roce.pcie_stalls", counted("outbound_pci_stalled_wr: 0", "outbound_pci_stalled_wr: 64"), WARN, "64 %"),
    Case(ROCE, "roce.neighbours", said(LLDP, f'"{RAIL}"', '"other"'), WARN, "7 / 8; mlx5_3"),
    Case(ROCE, "roce.neighbours", said(LLDP, '"leaf04"', '"leaf05"'), WARN, "mlx5_3, mlx5_4"),
    Case(
        ROCE, "roce.neighbours", fails(LLDP, "unable to connect to socket /run/lldpd.socket"), UNKNOWN, "lldpd.socket"
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.check}-{c.status.value}-{c.says[:20]}")
def test_a_planted_fault_is_found(case: Case, tmp_path: Path) -> None:
    node = Planted(tmp_path / "node", case.node)
    case.plant(node)
    verdict = judged(node.facts(), case.check)
    assert verdict.status is case.status, verdict
    told = [verdict.observed, verdict.reason_code, verdict.detail.en if verdict.detail else ""]
    assert any(case.says in text for text in told), told
    if verdict.status in (FAIL, WARN):
        assert verdict.evidence
        assert verdict.action is CHECKS[case.check].info.action


def test_every_item_has_a_planted_fault() -> None:
    assert set(NODE_ITEMS) - {c.check for c in CASES if c.status in (FAIL, WARN)} == set()


def home(check: str) -> str:
    return home_of(check)


READ = [(id, s) for id in NODE_ITEMS for s in CHECKS[id].reads if s not in (Call("pci"), Call("container"))]


@pytest.mark.parametrize(("check", "source"), READ, ids=lambda x: x if isinstance(x, str) else x.key[:30])
@pytest.mark.parametrize("status", ["denied", "timeout", "error"])
def test_a_source_that_was_refused_is_unknown(
    check: str, source: Source, status: str, at_home: Callable[[str], Facts]
) -> None:
    """One source at a time, and for a command that asks every NIC, one NIC at a time."""
    facts = at_home(check)
    keys = [source.key]
    if isinstance(source, Each):
        name = "mlx5_3" if source == LINK else RAIL if home(check) == ROCE else IBN
        keys.append(source.command(name).key)
    for key in keys:
        refused = msgspec.structs.replace(facts.readings[key], status=status, text="", detail="why")
        verdict = judged(msgspec.structs.replace(facts, readings=facts.readings | {key: refused}), check)
        assert verdict.status is UNKNOWN, (key, verdict)
        assert verdict.reason_code == {"denied": "permission"}.get(status, status)


# What else says so: one fault reads as one, but for faults that truly are two.
ALONE: dict[str, tuple[str, Plant, set[str]]] = {
    "a NIC is lost": (IB, without("mlx5_3"), {"rdma.devices", "rdma.affinity"}),
    "a cable is out": (IB, port("mlx5_3", state="DOWN", phys_state="Polling"), {"rdma.link"}),
    "all cables are out": (IB, port(*EVERY, state="DOWN", phys_state="Polling"), {"rdma.link"}),
    "no subnet manager": (IB, port("mlx5_3", state="INIT", lid=0, sm_lid=0), {"rdma.state"}),
    "lanes are lost": (IB, port("mlx5_3", rate="100 Gb/sec (1X NDR)"), {"rdma.rate"}),
    "bad cable": (IB, both(counter("symbol_error", 0, 9), counter("port_rcv_errors", 0, 3)), {"rdma.errors"}),
    "a driver without its devices": (IB, no_rails, {"rdma.devices"}),
    "a switch port with a small MTU": (ROCE, path(RAIL, full=False), {"roce.path_mtu"}),
    "a rail that is not let in": (
        ROCE,
        said(WPA.command(RAIL), "suppPortStatus=Authorized", "suppPortStatus=Unauthorized"),
        {"roce.port_access"},
    ),
    "an address is lost": (ROCE, gids("mlx5_3", [0, LL[0], "IB/RoCE v1", RAIL], [1, *LL]), {"roce.address"}),
    "PFC is off on one": (
        ROCE,
        qos(PFC_ON, PFC_OFF),
        {"roce.pfc"},
    ),
    "trust is pcp on one": (ROCE, qos("trust state: dscp", "trust state: pcp"), {"roce.trust"}),
    "a packet is changed": (ROCE, counter("rx_icrc_encapsulated", 0, 2), {"rdma.corruption"}),
}


@pytest.mark.parametrize("fault", ALONE)
def test_a_fault_is_found_by_the_items_that_should_and_by_no_other(fault: str, tmp_path: Path) -> None:
    name, plant, items = ALONE[fault]
    node = Planted(tmp_path / "node", name)
    checks = [id for id in CHECKS if isinstance(CHECKS[id], NodeCheck)]

    def bad() -> set[str]:
        return {v.check for v in check_facts([node.facts()], checks) if v.status in (FAIL, WARN)}

    before = bad()
    plant(node)
    assert bad() - before == items


# --------------------------------------------------------------------------------------------------- across nodes

CHANGES: dict[str, Plant] = {
    "same.rdma.firmware": device("mlx5_3", firmware="28.36.1010"),
    "same.rdma.ports": port("mlx5_3", rate="200 Gb/sec (2X NDR)"),
    "same.rdma.pkeys": port("mlx5_3", pkeys={"0": 0x8123}),
    "same.rdma.mtu": said(DEVINFO, "active_mtu:\t\t4096 (5)", "active_mtu:\t\t2048 (4)"),
    "same.ofed": said(OFED, "24.10-1.1.4.0", "23.10-0.5.5.0"),
    "same.roce.gid_index": gids("mlx5_3", [1, *LL], [5, *V4]),
    "same.roce.pfc": qos(PFC_ON, "enabled     0   0   1   0"),
    "same.roce.trust": qos("trust state: dscp", "trust state: pcp"),
    "same.roce.dscp": said(
        QOS.command(RAIL), "prio:3 dscp:31,30,", "prio:3 dscp:31,\n\tprio:4 dscp:30,\n\tprio:3 dscp:"
    ),
    "same.roce.ecn": lambda n: n.write(f"sys/class/net/{RAIL}/ecn/roce_np/enable/0", "1\n"),
    "same.roce.traffic_class": port("mlx5_3", traffic_class="Global tclass=10"),
    "same.roce.sysctl": conf("rp_filter", 1),
    "same.roce.wiring": both(said(LLDP, '"leaf04"', '"leaf99"'), said(LLDP, '"leaf05"', '"leaf04"')),
}


def test_every_consistency_item_has_a_difference() -> None:
    assert set(CHANGES) == set(SAME)


@pytest.mark.parametrize("check", SAME)
def test_a_difference_between_nodes_is_found(check: str, tmp_path: Path, at_home: Callable[[str], Facts]) -> None:
    first = at_home(check)
    third = msgspec.structs.replace(first, node="node3")
    odd = Planted(tmp_path / "odd", home(check)).rename("node2")
    CHANGES[check](odd)
    found = {n: v for v in check_facts([first, odd.facts(), third], [check], baseline=first.node) for n in v.nodes}
    assert [found[n].status for n in (first.node, "node2", "node3")] == [PASS, FAIL, PASS], found["node2"]
    (verdict,) = check_facts([first, odd.facts()], [check])
    assert verdict.status is Status.NA
    assert len(verdict.groups) == 2


# ------------------------------------------------------------------------------------------------- a person's rule


DEMANDS = {
    "rdma.port_rate": ("{ min = '400 Gb/s', where.name = 'mlx5_[0-7]' }", "{ min = '400 Gb/s' }"),
    "rdma.error_growth": ("{ max = 0 }", "{ min = 1 }"),
    "rdma.firmware_version": ("{ pattern = '2[68]\\.39\\..*' }", "{ one_of = ['28.39.3004'] }"),
    "optics.receive_power": ("{ min = -3 }", "{ min = 2 }"),
}
"""On the good node: what holds, and what does not."""


@pytest.mark.parametrize(
    ("check", "criterion", "plant", "says"),
    [
        ("rdma.port_rate", Quantity(4e11, "bit/s", "400Gb/s"), port("mlx5_3", rate="200 Gb/sec (2X NDR)"), "mlx5_3"),
        (
            "optics.receive_power",
            Quantity(-3.0, "1", "-3"),
            optics("1.1900 mW / 0.76 dBm", "0.3162 mW / -5.00 dBm"),
            "mlx5_3",
        ),
    ],
)
def test_a_persons_lower_limit(check: str, criterion: Quantity, plant: Plant, says: str, tmp_path: Path) -> None:
    node = Planted(tmp_path / "node")
    rule = Criteria("mine.toml", {check: Criterion(check, min=criterion, where=(("name", "mlx5_[0-7]"),))})
    (verdict,) = check_facts([node.facts()], [check], criteria=rule)
    assert verdict.status is PASS, verdict
    plant(node)
    (verdict,) = check_facts([node.facts()], [check], criteria=rule)
    assert verdict.status is FAIL
    assert says in verdict.observed


def test_a_persons_upper_limit_of_errors_and_their_firmware(tmp_path: Path) -> None:
    node = Planted(tmp_path / "node")
    rules = Criteria(
        "mine.toml",
        {
            "rdma.error_growth": Criterion("rdma.error_growth", max=Quantity(0, "1", "0")),
            "rdma.firmware_version": Criterion("rdma.firmware_version", pattern=r"2[68]\.39\..*"),
        },
    )
    assert {v.status for v in check_facts([node.facts()], list(rules.items), criteria=rules)} == {PASS}
    counter("port_rcv_errors", 0, 2)(node)
    device("mlx5_3", firmware="28.36.1010")(node)
    assert {v.status for v in check_facts([node.facts()], list(rules.items), criteria=rules)} == {FAIL}


# --------------------------------------------------------------------------------------------- how a counter grows


@pytest.mark.parametrize(
    ("name", "before", "after", "grew"),
    [
        ("symbol_error", 3, 9, 6),
        ("symbol_error", 65534, 65535, 1),
        ("symbol_error", 65535, 65535, None),
        ("symbol_error", 70000, 70001, 1),
        ("symbol_error", 500, 2, 2),
        ("link_downed", 255, 255, None),
        ("local_link_integrity_errors", 15, 15, None),
        ("out_of_sequence", 2**32 - 1, 4, 5),
        ("np_cnp_sent", 2**40, 1, 1),
        ("port_xmit_data", 2**32, 2**32 + 7, 7),
    ],
)
def test_growth(name: str, before: int, after: int, grew: int | None) -> None:
    assert growth(name, before, after) == grew


# --------------------------------------------------------------------------------------- text that is not whole


COMMANDS = [
    DEVINFO,
    INSTALLED,
    OFED,
    LLDP,
    LINK.command("mlx5_3"),
    SELF_TEST,
    *(e.command(RAIL) for e in (QOS, PAUSE, STATISTICS, MODULES)),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.key[:30])
def test_a_text_cut_short_is_never_a_pass(command: Command, at_home: Callable[[str], Facts]) -> None:
    facts = at_home("roce.pfc")
    whole = facts.readings[command.key]
    items = [
        id
        for id in NODE_ITEMS
        if any(
            s.key == command.key or (isinstance(s, Each) and s.name_in_words(command.argv)) for s in CHECKS[id].reads
        )
    ]
    assert items
    base = {v.check for v in check_facts([facts], items) if v.status is PASS}
    assert base == set(items)
    for length in range(0, len(whole.text.rstrip()), max(len(whole.text) // 150, 1)):
        cut = msgspec.structs.replace(whole, text=whole.text[:length])
        found = check_facts([msgspec.structs.replace(facts, readings=facts.readings | {command.key: cut})], items)
        assert [v.check for v in found if v.status is PASS] == [], whole.text[:length][-60:]
        assert not [v for v in found if v.detail is not None and "a bug of" in v.detail.en]


def test_an_infiniband_node_has_no_roce_items(good_facts: Facts) -> None:
    found = check_facts([good_facts], [id for id in OURS if CHECKS[id].info.scope == "roce"])
    assert {v.status for v in found} == {SKIP}


def test_a_node_without_rdma_skips_all(tmp_path: Path) -> None:
    node = no_rails(Planted(tmp_path / "node")).call("pci", devices=[])
    assert {v.status for v in check_facts([node.facts()], NODE_ITEMS)} == {SKIP}


def test_rdma_made_by_software_has_no_rails(tmp_path: Path) -> None:
    """Soft-RoCE on a laptop: nothing to find fault with, nothing that is missing."""
    node = Planted(tmp_path / "node").call("pci", devices=[])
    found = answer(node, "rdma")
    rxe = found["devices"][8] | {
        "name": "rxe0",
        "address": "",
        "firmware": "",
        "board": "",
        "hca_type": "",
        "netdevs": [],
    }
    rewrite(node, "rdma", found | {"devices": [rxe]})
    assert {v.status for v in check_facts([node.facts()], NODE_ITEMS)} == {PASS, SKIP}


def test_two_ports_in_a_bond_are_one_rdma_device(tmp_path: Path) -> None:
    node = Planted(tmp_path / "node")
    without("mlx5_9")(device("mlx5_8", name="mlx5_bond_0")(node))
    assert judged(node.facts(), "rdma.devices").status is PASS


def test_virtual_functions_do_not_count_beside_their_nic(tmp_path: Path) -> None:
    node = Planted(tmp_path / "node")
    found = answer(node, "rdma")
    extra = msgspec.json.decode(msgspec.json.encode(found["devices"][3]))
    extra.update(name="mlx5_20", virtual_function=True, address="0000:4a:00.1")
    extra["ports"][0].update(state="DOWN", phys_state="Disabled")
    found["devices"].append(extra)
    rewrite(node, "rdma", found)
    assert judged(node.facts(), "rdma.link").status is PASS
