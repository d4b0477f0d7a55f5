"""Each Ascend item on a node of 8 × 910B, with faults planted in what npu-smi, hccn_tool and the version files say."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cwai_bench.checks import CHECKS, ConfigurableCheck, ConsistencyCheck, NodeCheck, sources_for
from cwai_bench.checks import ascend as chips
from cwai_bench.checks import ascend_roce as roce
from cwai_bench.config import Criteria, Criterion, Quantity
from cwai_bench.discover import read_node
from cwai_bench.discover.recorded import slug
from cwai_bench.judge import check_facts
from cwai_bench.model import Action, Facts, Reading, Status, Verdict
from cwai_bench.sources import Command, Each
from tests.unit.conftest import Planted
from tests.unit.test_check_node_items import Case, judged

PASS, WARN, FAIL, UNKNOWN, SKIP = Status.PASS, Status.WARN, Status.FAIL, Status.UNKNOWN, Status.SKIP
HOME = "ascend_910b"
OWN = [c.info.id for c in CHECKS.values() if c.info.scope == "ascend"]
ITEMS = [c for c in OWN if isinstance(CHECKS[c], NodeCheck)]
SAME = [c for c in OWN if isinstance(CHECKS[c], ConsistencyCheck)]
YOURS = [c for c in OWN if isinstance(CHECKS[c], ConfigurableCheck)]
SERIES = range(8)


@functools.cache
def home() -> Facts:
    with tempfile.TemporaryDirectory() as folder:
        return Planted(Path(folder) / "node", HOME).facts()


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return Planted(tmp_path_factory.mktemp("home") / "node", HOME)


@pytest.fixture
def node(tmp_path: Path) -> Planted:
    return Planted(tmp_path / "node", HOME)


def path(source: Command) -> str:
    return f"commands/{slug(source)}/stdout"


def said(each: Each, old: str, new: str, *cards: int) -> Callable[[Planted], object]:
    """What the tool says of these cards (3, unless it is said) with ``old`` replaced."""

    def plant(n: Planted) -> object:
        for card in cards or (3,):
            n.replace(path(each.command(str(card))), old, new)
        return n

    return plant


def says(each: Each, text: str, *cards: int, code: int = 0, err: str = "") -> Callable[[Planted], object]:
    def plant(n: Planted) -> object:
        for card in cards or (3,):
            n.command(each.command(str(card)), text, code, err)
        return n

    return plant


def table(old: str, new: str) -> Callable[[Planted], object]:
    return lambda n: n.replace(path(chips.INFO), old, new)


def both(*plants: Callable[[Planted], object]) -> Callable[[Planted], object]:
    def plant(n: Planted) -> None:
        for one in plants:
            one(n)

    return plant


def no_card(n: Planted) -> Planted:
    return n.call("pci", devices=[])


def older(n: Planted) -> Planted:
    """Cards for inference only (310P)."""
    return n.rows("pci", "devices", {"model": "19e5:d802"}, model="19e5:d500")


ROW3 = "| 3     910B3               | OK            | 92.2        44                0    / 0             |"
CORE3 = "| 0                         | 0000:82:00.0  | 0           0    / 0          3394  / 65536        |"
NOBODY3 = "| No running processes found in NPU 3                                                            |"
SOMEBODY3 = "| 3       0                 | 424242        | python3.10               | 50012                   |"
DOWN = "dcmi module initialize failed. ret is -8005\n"

CASES = [
    # driver and count
    Case("ascend.driver", lambda n: n.command(chips.MAP, DOWN, 255), FAIL, "-8005"),
    Case(
        "ascend.driver",
        lambda n: n.command(
            chips.MAP, "dcmi model initialized failed, because the device is used. ret is -8020\n", 255
        ),
        FAIL,
        "device is used",
    ),
    Case(
        "ascend.driver",
        lambda n: n.command(chips.MAP, "dcmi module initialize failed. ret is -8002\n", 255),
        UNKNOWN,
        "permission",
    ),
    Case("ascend.driver", lambda n: n.command(chips.MAP, "There is no NPU card on this server.\n"), UNKNOWN, "parse"),
    Case("ascend.driver", lambda n: n.refuse(chips.MAP, "missing", "No such file"), UNKNOWN, "missing_tool"),
    Case("ascend.driver", lambda n: n.refuse(chips.MAP, "timeout", "ended after 10 s"), UNKNOWN, "timeout"),
    Case("ascend.driver", no_card, SKIP, "absent"),
    Case(
        "ascend.count",
        lambda n: n.replace(
            path(chips.MAP), "\t7                              0                              7     ", "\t7  0  -  "
        ),
        FAIL,
        "davinci7 unknown",
    ),
    Case("ascend.count", lambda n: n.remove(f"commands/{slug(chips.HEALTH[0].command('5'))}"), FAIL, "/dev/davinci5"),
    Case("ascend.count", table("0000:42:00.0", "0000:43:00.0"), FAIL, "0000:42:00.0 unknown"),
    Case("ascend.count", lambda n: n.command(chips.MAP, DOWN, 255), UNKNOWN, "cause"),
    # versions
    Case(
        "ascend.firmware",
        lambda n: n.replace("usr/local/Ascend/firmware/version.info", "Version=7.5.0", "Version=7.6.0"),
        FAIL,
        "firmware 7.6.0.1.129",
    ),
    Case("ascend.firmware", said(chips.BOARD, ": OK", ": NOK"), FAIL, "NPU 3 compatibility NOK"),
    Case(
        "ascend.firmware",
        lambda n: n.remove("usr/local/Ascend/driver/version.info"),
        UNKNOWN,
        "missing_source",
    ),
    Case(
        "ascend.firmware",
        lambda n: n.write("usr/local/Ascend/driver/version.info", "Vers"),
        UNKNOWN,
        "parse",
    ),
    Case("ascend.running", said(chips.BOARD, "24.1.rc3", "24.1.rc2"), FAIL, "NPU 3 driver 24.1.rc2 / 24.1.rc3"),
    Case("ascend.running", said(chips.BOARD, "7.5.0.1.129", "7.3.0.1.231"), FAIL, "firmware 7.3.0.1.231"),
    Case("ascend.running", said(chips.BOARD, ": 24.1.rc3", ": NA"), UNKNOWN, "parse"),
    Case(
        "ascend.cann",
        lambda n: n.replace(
            "usr/local/Ascend/ascend-toolkit/latest/aarch64-linux/ascend_toolkit_install.info", "=aarch64", "=x86_64"
        ),
        FAIL,
        "8.0.RC3 x86_64 / aarch64",
    ),
    Case(
        "ascend.cann",
        lambda n: n.write(
            "usr/local/Ascend/ascend-toolkit/latest/aarch64-linux/ascend_toolkit_install.info",
            "version=8.5.0\ninnerversion=V100R001C25SPC001B212\ncompatible_version=[V100R001C23]\narch=aarch64\n",
        ),
        WARN,
        "V100R001C25 / V100R001C19",
    ),
    Case("ascend.cann", lambda n: n.remove("usr/local/Ascend/ascend-toolkit"), SKIP, "absent"),
    # chip health
    Case(
        "ascend.health",
        says(
            chips.HEALTH[0],
            "\tHealth Status                  : Alarm\n\tError Code                     : A4025021 8C084E00\n"
            "\tError Information              : ascend_monitor adda heart beat lost error\n\n"
            "\t                               : node type=adda, event state=Heartbeat Lost.\n",
        ),
        FAIL,
        "NPU 3 Alarm A4025021 8C084E00",
    ),
    Case("ascend.health", said(chips.HEALTH[0], ": OK", ": Warning"), WARN, "NPU 3 Warning"),
    Case("ascend.health", says(chips.HEALTH[0], DOWN, code=255), UNKNOWN, "error"),
    Case("ascend.health", says(chips.HEALTH[0], ""), UNKNOWN, "parse"),
    Case("ascend.health", lambda n: n.remove(f"commands/{slug(chips.HEALTH[0].command('5'))}"), UNKNOWN, "missing"),
    Case(
        "ascend.codes",
        said(chips.HEALTH[0], "Error Code                     : NA", "Error Code : 80CD8008"),
        WARN,
        "80CD8008",
    ),
    Case("ascend.codes", said(chips.HEALTH[0], ": OK", ": Alarm"), UNKNOWN, "cause"),
    # HBM
    Case(
        "ascend.hbm",
        said(chips.ECC, "Double Bit Error Count               : 0", "Double Bit Error Count : 2"),
        FAIL,
        "NPU 3 2 double-bit",
    ),
    Case(
        "ascend.hbm",
        said(chips.ECC, "Double Bit Error Count               : 0", "Double Bit Error Count : NA"),
        UNKNOWN,
        "parse",
    ),
    Case("ascend.hbm", older, SKIP, "unsupported"),
    Case(
        "ascend.hbm_pages",
        said(chips.ECC, "Double Bit Isolated Pages Count      : 0", "Double Bit Isolated Pages Count : 64"),
        FAIL,
        "64 isolated",
    ),
    Case(
        "ascend.hbm_pages",
        said(chips.ECC, "Double Bit Next-Isolated Pages Count : 0", "Double Bit Next-Isolated Pages Count : 1"),
        WARN,
        "1 pending",
    ),
    Case(
        "ascend.hbm_corrected",
        said(chips.ECC, "Single Bit Error Count               : 0", "Single Bit Error Count : 41000"),
        WARN,
        "NPU 3 41000",
    ),
    # the table
    Case("ascend.temperature", table(ROW3, ROW3.replace(" 44 ", " 98 ")), FAIL, "NPU 3 98 °C"),
    Case("ascend.temperature", table(ROW3, ROW3.replace(" 44 ", " 80 ")), WARN, "NPU 3 80 °C"),
    Case("ascend.temperature", table(ROW3, ROW3.replace(" 44 ", " NA ")), UNKNOWN, "parse"),
    Case("ascend.power", table(ROW3, ROW3.replace("92.2 ", "310.4")), WARN, "NPU 3 310.4 W"),
    Case("ascend.power", table(ROW3, ROW3.replace("92.2", "0.0 ")), FAIL, "NPU 3 0 W"),
    Case("ascend.ai_core", table(CORE3, CORE3.replace("| 0           0", "| 97          0")), WARN, "NPU 3 97 %"),
    Case("ascend.memory", table(CORE3, CORE3.replace("3394 ", "53394")), WARN, "NPU 3 81%"),
    Case("ascend.processes", table(NOBODY3, SOMEBODY3), WARN, "NPU 3 python3.10 (424242)"),
    Case("ascend.processes", table(NOBODY3 + "\n", ""), UNKNOWN, "parse"),
    Case("ascend.processes", lambda n: n.command(chips.INFO, DOWN, 255), UNKNOWN, "cause"),
    # links between chips
    Case("ascend.hccs", said(chips.HCCS[0], ": OK", ": NOK"), FAIL, "NPU 3 NOK"),
    Case("ascend.hccs", said(chips.HCCS[0], "[4            4 ", "[4            2 "), FAIL, "link 1 ×2"),
    Case(
        "ascend.hccs",
        said(chips.HCCS[0], "hccs error count               : [0 ", "hccs error count : [9 "),
        FAIL,
        "link 0 9 errors",
    ),
    Case(
        "ascend.hccs",
        said(chips.HCCS[0], "hccs retry count               : [0 ", "hccs retry count : [7 "),
        WARN,
        "7 retries",
    ),
    # log
    Case(
        "ascend.log",
        lambda n: n.log("[ascend] [ERROR] [drv_devmng] [dms_heart_beat 88] <kworker> Heartbeat lost. (dev_id=3)"),
        FAIL,
        "dev_id=3",
    ),
    Case(
        "ascend.log",
        lambda n: n.log("[ascend] [ERROR] [devmm] [devmm_x 810] <python:1> Host page fault"),
        WARN,
        "page fault",
    ),
    Case("ascend.log", lambda n: n.log("[ascend] [ERROR] [devmm] old", age=90_000), PASS, "0 in"),
    # RoCE: addresses
    Case(
        "ascend.roce.ip",
        says(roce.IP, "", code=13, err="Get ipconf failed, because no ip was preset there!"),
        FAIL,
        "port 3 no address",
    ),
    Case(
        "ascend.roce.ip", says(roce.IP, "ipaddr:29.1.112.21\nnetmask:255.255.255.0\n"), FAIL, "29.1.112.21 not unique"
    ),
    Case("ascend.roce.ip", says(roce.IP, "ipaddr:0.0.0.0\nnetmask:0.0.0.0\n", *SERIES), WARN, "-"),
    Case(
        "ascend.roce.ip",
        says(roce.IP, "", code=1, err="hccn_tool: permission denied: only root user is allowed"),
        UNKNOWN,
        "permission",
    ),
    Case("ascend.roce.ip", older, SKIP, "unsupported"),
    Case("ascend.roce.ip", says(roce.IP, "not supported\n", code=1), UNKNOWN, "error"),
    Case("ascend.roce.mac", says(roce.MAC, "mac addr: 2c:97:b1:4e:07:20\n"), FAIL, "2c:97:b1:4e:07:20"),
    Case(
        "ascend.roce.gateway",
        says(roce.GATEWAY, "default gateway:29.1.9.1, Iface:eth3\n"),
        FAIL,
        "29.1.9.1 not in 29.1.115.0/24",
    ),
    Case("ascend.roce.gateway", says(roce.GATEWAY, "no default gateway\n", code=1), WARN, "port 3 no gateway"),
    Case("ascend.roce.detect", says(roce.NET_DETECT, "netdetect addr: 0.0.0.0\n"), WARN, "port 3 not set"),
    Case(
        "ascend.roce.health",
        says(roce.NET_HEALTH, "net health status: Receive timeout\n"),
        FAIL,
        "port 3 Receive timeout",
    ),
    Case("ascend.roce.health", says(roce.NET_HEALTH, "net health status: Init\n"), WARN, "port 3 Init"),
    Case("ascend.roce.health", says(roce.NET_DETECT, "netdetect addr: 0.0.0.0\n"), UNKNOWN, "cause"),
    # RoCE: links
    Case("ascend.roce.link", says(roce.LINK, "link status: DOWN\n"), FAIL, "port 3 DOWN"),
    Case("ascend.roce.link", lambda n: n.refuse(roce.LINK.command("3"), "timeout", "ended"), UNKNOWN, "timeout"),
    Case("ascend.roce.link", says(roce.LINK, "link sta"), UNKNOWN, "parse"),
    Case(
        "ascend.roce.link",
        both(
            says(roce.LINK, "link status: DOWN\n", *SERIES),
            says(roce.IP, "", *SERIES, code=13, err="Get ipconf failed, because no ip was preset there!"),
        ),
        SKIP,
        "absent",
    ),
    Case(
        "ascend.roce.flaps",
        said(roce.LINK_STAT, "Mon Dec 22 20:41:50 2025    LINK DOWN", "Wed Dec 31 20:00:00 2025    LINK DOWN"),
        PASS,
        "8 / 8",
    ),
    Case(
        "ascend.roce.flaps",
        both(
            said(roce.LINK_STAT, "Mon Dec 22 20:41:51 2025    LINK UP", "Wed Dec 31 20:01:05 2025    LINK UP"),
            said(roce.LINK_STAT, "Mon Dec 22 20:41:50 2025    LINK DOWN", "Wed Dec 31 20:00:00 2025    LINK DOWN"),
        ),
        WARN,
        "port 3 1 down, longest 65 s",
    ),
    Case("ascend.roce.speed", says(roce.SPEED, "Speed: 100000 Mb/s\n"), FAIL, "port 3 100 Gb/s"),
    Case("ascend.roce.speed", says(roce.SPEED, "Speed: Unknown!\n"), UNKNOWN, "parse"),
    Case("ascend.roce.speed", says(roce.LINK, "link status: DOWN\n"), UNKNOWN, "cause"),
    Case("ascend.roce.duplex", says(roce.DUPLEX, "Duplex: Half\n"), FAIL, "port 3 half"),
    Case("ascend.roce.mtu", says(roce.MTU, "mtu:1500\n"), FAIL, "port 3 1500"),
    Case("ascend.roce.tls", said(roce.TLS, "switch[0]", "switch[1]"), FAIL, "port 3 on"),
    Case("ascend.roce.fec", says(roce.FEC, "fec mode: no FEC mode\n"), FAIL, "port 3 no"),
    Case("ascend.roce.peer", says(roce.LLDP, ""), WARN, "port 3 silent"),
    Case("ascend.roce.peer", said(roce.LLDP, "400GE1/2/5:2", "400GE1/2/5:1"), FAIL, "400GE1/2/5:1 not unique"),
    # optics
    Case("ascend.optical.present", said(roce.OPTICAL, ": present", ": not present"), FAIL, "port 3 no module"),
    Case("ascend.optical.present", said(roce.OPTICAL, ": enabled", ": not enabled"), WARN, "port 3 low power"),
    Case(
        "ascend.optical.tx_power",
        said(roce.OPTICAL, "Tx Power1            : 1.4268", "Tx Power1 : 4.4035"),
        FAIL,
        "port 3 lane 1 4.4035 mW",
    ),
    Case(
        "ascend.optical.rx_power",
        said(roce.OPTICAL, "Rx Power2            : 0.9789", "Rx Power2 : 0.0054"),
        FAIL,
        "port 3 lane 2 0.0054 mW",
    ),
    Case("ascend.optical.rx_power", said(roce.OPTICAL, ": present", ": not present"), UNKNOWN, "cause"),
    Case(
        "ascend.optical.rx_power",
        said(roce.OPTICAL, "RxPower Low Thres    : 0.1445 mW", "RxPower Low Thres    : NA", *SERIES),
        SKIP,
        "unsupported",
    ),
    Case(
        "ascend.optical.bias",
        said(roce.OPTICAL, "Tx Bias0             : 7.9360", "Tx Bias0 : 0.0000"),
        FAIL,
        "port 3 lane 0 0 mA",
    ),
    Case(
        "ascend.optical.bias",
        said(roce.OPTICAL, "Tx Bias0             : 7.9360", "Tx Bias0 : 3.1000"),
        WARN,
        "3.1 to 7.984 mA",
    ),
    Case("ascend.optical.supply", said(roce.OPTICAL, "3262.90 mV", "3099.00 mV"), FAIL, "port 3 3099 mV"),
    Case(
        "ascend.optical.signal",
        said(roce.OPTICAL, "Rx Los Flag          : 0x0", "Rx Los Flag : 0xff"),
        FAIL,
        "port 3 rx los 0xff",
    ),
    Case("ascend.optical.snr", said(roce.OPTICAL, ": 21.4000 dB", ": 6.8000 dB"), FAIL, "port 3 6.8 dB"),
    Case("ascend.optical.snr", said(roce.OPTICAL, ": 21.4000 dB", ": 15.1000 dB"), WARN, "15.1 to 21.1 dB"),
    Case("ascend.optical.cdr", said(roce.CDR_SNR, ": 19.5000 dB", ": 7.2000 dB"), FAIL, "port 3 7.2 dB"),
    Case(
        "ascend.optical.cdr",
        says(roce.CDR_SNR, "this command not supported in this product\n", *SERIES, code=1),
        SKIP,
        "unsupported",
    ),
    Case("ascend.optical.transmitter", said(roce.TRANSMITTER, "0x0", "0xf"), FAIL, "port 3 tx disable 0xf"),
    Case(
        "ascend.optical.transmitter",
        said(roce.TRANSMITTER, "no loopback mode", "host side input loopback mode"),
        FAIL,
        "port 3 host side input",
    ),
    # counters
    Case(
        "ascend.roce.packets",
        said(roce.STATISTICS, "mac_rx_fcs_err_pkt_num:0", "mac_rx_fcs_err_pkt_num:98127364"),
        FAIL,
        "mac_rx_fcs_err_pkt_num 98127364",
    ),
    Case(
        "ascend.roce.packets",
        said(roce.STATISTICS, "roce_verification_err_num:0", "roce_verification_err_num:90000"),
        WARN,
        "90000 bad",
    ),
    Case(
        "ascend.roce.packets", says(roce.STATISTICS, "packet statistics:\nmac_tx_mac_pause_num:0\n"), UNKNOWN, "parse"
    ),
    Case(
        "ascend.roce.retries",
        said(roce.STATISTICS, "roce_new_pkt_rty_num:12", "roce_new_pkt_rty_num:99000000"),
        WARN,
        "port 3 99000000",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.check}-{c.status.value}-{c.says[:20]}")
def test_a_planted_fault_is_found(case: Case, node: Planted) -> None:
    case.plant(node)
    facts = read_node("", node.root, sources_for([case.check]), time.monotonic() + 30)
    verdict = judged(facts, case.check)
    assert verdict.status is case.status, verdict
    words = [verdict.observed, verdict.reason_code, verdict.detail.en if verdict.detail else ""]
    assert any(case.says in text for text in words), words
    if verdict.status in (FAIL, WARN):
        assert verdict.evidence
        assert verdict.action is CHECKS[case.check].info.action


def test_the_evidence_begins_with_the_card_that_failed(node: Planted) -> None:
    said(roce.OPTICAL, "Rx Power2            : 0.9789", "Rx Power2 : 0.0054", 7)(node)
    evidence = {e.source: e.text for e in judged(node.facts(), "ascend.optical.rx_power").evidence}
    assert evidence[roce.OPTICAL.key].startswith("[7] optical info:")
    assert "Rx Power2 : 0.0054" in evidence[roce.OPTICAL.key]


def test_every_item_has_a_planted_fault() -> None:
    assert set(ITEMS) - {c.check for c in CASES if c.status in (FAIL, WARN)} == set()


def test_as_many_items_apply_as_were_promised() -> None:
    verdicts = check_facts([home()], ITEMS)
    assert [v for v in verdicts if v.status is not PASS] == []
    assert len(verdicts) >= 21
    titles = {CHECKS[c].info.title.en for c in ITEMS}
    assert {"NPU chip health", "NPU driver health", "HBM health"} <= titles


def test_the_host_of_the_cards_is_well_too() -> None:
    """Nothing of the host fails or stays unknown on a node of another architecture and vendor."""
    items = [c.info.id for c in CHECKS.values() if isinstance(c, NodeCheck) and c.info.scope == "host"]
    assert [v for v in check_facts([home()], items) if v.status not in (PASS, SKIP)] == []


def test_without_a_card_all_items_are_skipped(planted: Planted) -> None:
    """``planted`` is a node of another vendor."""
    verdicts = check_facts([planted.facts()], [*ITEMS, *SAME])
    assert {(v.status, v.reason_code) for v in verdicts} == {(SKIP, "absent")}


ALONE = {
    "temperature": (table(ROW3, ROW3.replace(" 44 ", " 98 ")), {"ascend.temperature"}),
    "hbm": (
        said(chips.ECC, "Double Bit Error Count               : 0", "Double Bit Error Count : 2"),
        {"ascend.hbm"},
    ),
    "fec": (says(roce.FEC, "fec mode: no FEC mode\n"), {"ascend.roce.fec"}),
    "tls": (said(roce.TLS, "switch[0]", "switch[1]"), {"ascend.roce.tls"}),
    "link": (says(roce.LINK, "link status: DOWN\n"), {"ascend.roce.link"}),
    "driver": (
        both(lambda n: n.command(chips.MAP, DOWN, 255), lambda n: n.command(chips.INFO, DOWN, 255)),
        {"ascend.driver"},
    ),
    "module": (said(roce.OPTICAL, ": present", ": not present"), {"ascend.optical.present"}),
    "detect": (says(roce.NET_DETECT, "netdetect addr: 0.0.0.0\n"), {"ascend.roce.detect"}),
    "address": (
        says(roce.IP, "", code=13, err="Get ipconf failed, because no ip was preset there!"),
        {"ascend.roce.ip"},
    ),
    "card": (
        lambda n: n.replace(path(chips.MAP), f"\t7{' ' * 30}0{' ' * 30}7 ", f"\t7{' ' * 30}0{' ' * 30}- "),
        {"ascend.count"},
    ),
    "alarm": (said(chips.HEALTH[0], ": OK", ": Alarm"), {"ascend.health"}),
    "firmware": (
        lambda n: n.replace("usr/local/Ascend/firmware/version.info", "Version=7.5.0", "Version=7.4.0"),
        {"ascend.running"},
    ),
}


@pytest.mark.parametrize("fault", ALONE)
def test_one_fault_reads_as_one(fault: str, node: Planted) -> None:
    """What follows from another item's fault is UNKNOWN(cause) at most; all other items pass."""
    plant, expected = ALONE[fault]
    plant(node)
    every = [c.info.id for c in CHECKS.values() if isinstance(c, NodeCheck)]
    verdicts = check_facts([node.facts()], every)
    assert {v.check for v in verdicts if v.status in (FAIL, WARN)} == expected
    assert {v.reason_code for v in verdicts if v.status is UNKNOWN} <= {"cause"}


@pytest.mark.parametrize("check", [*ITEMS, *SAME])
def test_what_an_item_reads_is_all_that_it_needs(check: str, untouched: Planted) -> None:
    own = read_node("", untouched.root, sources_for([check]), time.monotonic() + 30)
    assert check_facts([own], [check]) == check_facts([msgspec.structs.replace(home(), node=own.node)], [check])


@pytest.mark.parametrize("status", ["denied", "timeout", "error"])
@pytest.mark.parametrize("check", ITEMS)
def test_a_refused_reading_is_never_a_pass(check: str, status: str) -> None:
    """Each source of an item was refused in turn, for one card where there are many."""
    facts = home()
    for source in CHECKS[check].reads:
        for key in {source.key, *(k for k in facts.readings if belongs(k, source.key))} & set(facts.readings):
            reading = facts.readings[key]
            if reading.status != "ok" or key == "call:container":  # asked only where a card is missing
                continue
            refused = msgspec.structs.replace(reading, status=status, text="")
            verdict = judged(msgspec.structs.replace(facts, readings=facts.readings | {key: refused}), check)
            assert verdict.status is UNKNOWN, (key, verdict)


def belongs(key: str, template: str) -> bool:
    """True of the command that a template asks of one card."""
    return "{}" in template and key in {template.replace("{}", str(i)) for i in SERIES}


# ---------------------------------------------------------------------------------------------------------- consistency

CHANGES: dict[str, Callable[[Planted], object]] = {
    "same.ascend.driver": lambda n: n.replace("usr/local/Ascend/driver/version.info", "=24.1.rc3", "=25.0"),
    "same.ascend.firmware": lambda n: n.replace("usr/local/Ascend/firmware/version.info", "7.5.0.1.129", "7.3.0.1.231"),
    "same.ascend.cann": lambda n: n.replace(
        "usr/local/Ascend/ascend-toolkit/latest/aarch64-linux/ascend_toolkit_install.info", "8.0.RC3", "8.1.RC1"
    ),
    "same.ascend.chip": lambda n: n.replace(path(chips.MAP), "Ascend 910B3", "Ascend 910B2"),
    "same.ascend.planes": said(roce.IP, "ipaddr:29.1.", "ipaddr:29.9."),
    "same.ascend.tls": said(roce.TLS, "switch[0]", "switch[1]", *SERIES),
    "same.ascend.fec": says(roce.FEC, "fec mode: no FEC mode\n", *SERIES),
    "same.ascend.mtu": says(roce.MTU, "mtu:8192\n", *SERIES),
    "same.ascend.speed": says(roce.SPEED, "Speed: 100000 Mb/s\n", *SERIES),
}
POD = "\tSDID                           : 16777216\n\tSuper Pod Size                 : 384\n\tSuper Pod ID                   : {}\n\tServer Index                   : 4\n"  # noqa: E501


@pytest.mark.parametrize("check", CHANGES)
def test_a_difference_from_the_baseline_fails(check: str, node: Planted) -> None:
    CHANGES[check](node.rename("npu2"))
    found = {n: v for v in check_facts([home(), node.facts()], [check], baseline="npu1") for n in v.nodes}
    assert found["npu2"].status is FAIL, found["npu2"]
    assert found["npu1"].status is PASS


def test_in_a_container_the_cards_handed_to_it_are_all_that_there_are(node: Planted) -> None:
    node.call("container", kind="docker")
    ALONE["card"][0](node)
    for each in (chips.HEALTH[0], chips.ECC, chips.BOARD, chips.HCCS[0], chips.SUPER_POD):
        node.remove(f"commands/{slug(each.command('7'))}")
    verdicts = check_facts([node.facts()], ["ascend.count", "ascend.hbm", "ascend.health"])
    assert [v.status for v in verdicts] == [PASS] * 3


def test_super_pods_are_compared_where_there_are_any(node: Planted, tmp_path: Path) -> None:
    (verdict,) = check_facts([home()], ["same.ascend.super_pod"])
    assert (verdict.status, verdict.reason_code) == (SKIP, "unsupported")
    says(chips.SUPER_POD, POD.format(0), *SERIES)(node)
    other = Planted(tmp_path / "other", HOME).rename("npu2")
    says(chips.SUPER_POD, POD.format(7), *SERIES)(other)
    verdicts = check_facts([node.facts(), other.facts()], ["same.ascend.super_pod"], baseline="npu1")
    found = {n: v for v in verdicts for n in v.nodes}
    assert (found["npu2"].status, found["npu2"].observed) == (FAIL, "7 of 384")


def test_every_comparison_has_a_change() -> None:
    assert {*CHANGES, "same.ascend.super_pod"} == set(SAME)


# --------------------------------------------------------------------------------------------------------- configurable

LIMITS = {
    "ascend.ecc_total": ("max", 2, "NPU 5"),
    "ascend.celsius": ("max", 43, "NPU 3"),
    "ascend.optical.rx_milliwatt": ("min", 1.0, "port 0"),
    "ascend.optical.tx_milliwatt": ("min", 1.4, "port 0"),
    "ascend.optical.snr_decibel": ("min", 21.0, "port 0"),
    "ascend.roce.downs": ("max", -1, "port 0"),
}


@pytest.mark.parametrize("check", YOURS)
def test_a_persons_criterion_is_held_against_the_values(check: str) -> None:
    end, limit, named = LIMITS[check]
    for value, status in ((limit, FAIL), (limit + (100 if end == "max" else -100), PASS)):
        quantity = Quantity(value, "1", f"{value}")
        criterion = Criterion(check, max=quantity) if end == "max" else Criterion(check, min=quantity)
        (verdict,) = check_facts([home()], [check], criteria=Criteria("yours.toml", {check: criterion}))
        assert verdict.status is status, verdict
        assert status is PASS or named in verdict.observed


# ---------------------------------------------------------------------------------------------------- the other dialect

TWO_DIES = """\
\tNPU ID                         Chip ID                        Chip Logic ID                  Chip Phy-ID                    Chip Name
\t0                              0                              0                              0                              Ascend910
\t0                              1                              1                              1                              Ascend910
\t0                              2                              -                              -                              Mcu
"""  # noqa: E501


def test_a_card_of_two_chips_is_asked_for_both(node: Planted) -> None:
    """The second chip of the first card is /dev/davinci1, and npu-smi knows it as 0 and 1."""
    node.command(chips.MAP, TWO_DIES)
    second = chips.HEALTH[1].command("0")
    (node.root / f"commands/{slug(second)}").mkdir()
    node.command(second, "\tHealth Status : Alarm\n\tError Code : 80E01801\n\tError Information : x\n")
    verdict = judged(node.facts(), "ascend.health")
    assert (verdict.status, verdict.observed) == (FAIL, "NPU 0.1 Alarm 80E01801")
    assert verdict.detail is not None
    assert "HBM" in verdict.detail.zh


# --------------------------------------------------------------------------------------------------------- hostile text

KEYS = sorted(k for k in home().readings if k.startswith(("$ npu-smi", "$ hccn_tool", "usr/local")) and "{}" not in k)
JUNK = st.one_of(
    st.text(max_size=200),
    st.binary(max_size=200).map(lambda b: b.decode("utf-8", "replace")),
    st.sampled_from(["\x00", "\r\n", "[N/A]\n", "NA\n", ":\n", "|\n", "9" * 400 + "\n", "-1\n", "{}\n"]),
)


def no_bug(verdicts: list[Verdict]) -> None:
    for verdict in verdicts:
        assert verdict.detail is None or "a bug of" not in verdict.detail.en, verdict


def with_text(key: str, text: str) -> Facts:
    reading = home().readings[key]
    return msgspec.structs.replace(
        home(), readings=home().readings | {key: msgspec.structs.replace(reading, text=text)}
    )


def readers_of(key: str) -> list[str]:
    return [c for c in [*ITEMS, *SAME] if any(s.key == key or belongs(key, s.key) for s in CHECKS[c].reads)]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(key=st.sampled_from(KEYS), junk=JUNK, at=st.floats(0, 1))
def test_whatever_a_tool_says_is_no_bug_of_ours(key: str, junk: str, at: float) -> None:
    text = home().readings[key].text
    where = int(len(text) * at)
    for new in (junk, text[:where] + junk + text[where:], text.replace("\n", "\r\n")):
        no_bug(check_facts([with_text(key, new)], [*ITEMS, *SAME]))


@pytest.mark.parametrize("key", [k for k in KEYS if k.startswith("$") and (" -i 3 " in k or " -i " not in k)])
def test_half_an_answer_is_no_pass(key: str) -> None:
    """Cut in a line or between two: an item passes only if all that it judges was still there."""
    text = home().readings[key].text
    # ascend.count wants to know which cards were asked, not what they said of their health.
    items = [c for c in readers_of(key) if c in ITEMS and not (c == "ascend.count" and "-t health" in key)]
    for end in (i for i in range(len(text.rstrip())) if text[i - 1 : i] == "\n" or i % 37 == 0):
        for verdict in check_facts([with_text(key, text[:end])], items):
            assert verdict.status is not PASS or whole_enough(key, text[:end]), (verdict, text[:end][-200:])


def whole_enough(key: str, cut: str) -> bool:
    """What stands after this is judged by no item, or printed by some drivers only."""
    tails = {
        "-t board": "Chip Count",
        "-t hccs": "hccs error count",
        "-scdr": "Cdr Media SNR Lane4",
        "-optical -g": "Rx Los Flag",
        "info -m": "\t7 ",
    }
    return cut.endswith("\n") and any(words in key and last in cut for words, last in tails.items())


@pytest.mark.parametrize("key", KEYS)
def test_windows_line_ends_change_no_verdict(key: str) -> None:
    items = readers_of(key)
    changed = check_facts([with_text(key, home().readings[key].text.replace("\n", "\r\n"))], items)
    assert [(v.check, v.status, v.observed) for v in changed] == [
        (v.check, v.status, v.observed) for v in check_facts([home()], items)
    ]


def test_a_device_file_of_another_name_is_no_card(node: Planted) -> None:
    stray = chips.HEALTH[0].command("0_backup")
    (node.root / f"commands/{slug(stray)}").mkdir()
    node.command(stray, "x\n")
    assert judged(node.facts(), "ascend.count").status is PASS


def test_a_tool_that_is_missing_is_unknown_for_all(node: Planted) -> None:
    readings = {
        k: Reading(k, "missing", detail="No such file") if k.startswith("$ hccn_tool") and "{}" not in k else r
        for k, r in home().readings.items()
    }
    verdicts = check_facts([msgspec.structs.replace(home(), readings=readings)], ITEMS)
    asked = {c for c in ITEMS if any(s.key.startswith("$ hccn_tool") for s in CHECKS[c].reads)}
    assert {v.check for v in verdicts if v.reason_code == "missing_tool"} == asked
    assert {v.status for v in verdicts if v.check in asked} == {UNKNOWN}
    assert {v.status for v in verdicts if v.check not in asked} == {PASS}


def test_an_item_that_fails_asks_for_something_to_be_done() -> None:
    assert all(CHECKS[c].info.action is not Action.NONE for c in ITEMS)
