"""Readers of npu-smi, hccn_tool and the version files, on text of several driver generations and on junk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwai_bench.readers import Unreadable, ascend

COMMANDS = Path(__file__).resolve().parent.parent / "fixtures" / "nodes" / "ascend_910b" / "commands"


def recorded(words: str) -> str:
    """What the command said on the recorded node."""
    (folder,) = [d for d in COMMANDS.iterdir() if (d / "argv").read_text().split() == words.split()]
    return (folder / "stdout").read_text()


# vllm-ascend issue 2534: 910C (A3), two chips on a card; the second has no power meter of its own
TABLE_A3 = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 25.2.0                   Version: 25.2.0                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip  Phy-ID              | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     Ascend910           | OK            | 178.5       36                0    / 0             |
| 0     0                   | 0000:9D:00.0  | 0           0    / 0          3416 / 65536         |
+------------------------------------------------------------------------------------------------+
| 0     Ascend910           | Alarm         | -           36                0    / 0             |
| 1     1                   | 0000:9F:00.0  | 7           0    / 0          3195 / 65536         |
+===========================+===============+====================================================+
+---------------------------+---------------+----------------------------------------------------+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| 0       0                 | 1444272       | sglangschedul            | 60970                   |
| 0       1                 | 1444275       | sglangschedul            | 60970                   |
+===========================+===============+====================================================+
"""
SECOND = "| 1     1                   | 0000:9F:00.0  | 7           0    / 0          3195 / 65536         |\n"
# 1Panel issue 9472: 910B4, no blank before the slash of a five-digit number
TABLE_A2 = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 24.1.1                   Version: 24.1.1                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B4               | OK            | 88.2        30                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          26838/ 32768         |
+===========================+===============+====================================================+
+---------------------------+---------------+----------------------------------------------------+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| No running processes found in NPU 0                                                            |
+===========================+===============+====================================================+
[WARNING]The driver package may not be completely installed, which may cause function abnormal. Please reinstall it.
"""


def test_the_table_of_one_chip_a_card() -> None:
    found = ascend.table(TABLE_A2)
    (chip,) = found.chips
    assert (found.version, chip.label, chip.bus, chip.health) == ("24.1.1", "NPU 0", "0000:c1:00.0", "OK")
    assert (chip.power, chip.temperature, chip.ai_core) == (88.2, 30, 0)
    assert (chip.memory_used, chip.memory_total) == (26838 << 20, 32768 << 20)
    assert found.processes == []


def test_the_table_of_two_chips_a_card() -> None:
    found = ascend.table(TABLE_A3)
    assert [(c.label, c.health, c.power) for c in found.chips] == [("NPU 0", "OK", 178.5), ("NPU 0.1", "Alarm", None)]
    assert found.processes is not None
    assert [(p.npu, p.pid) for p in found.processes] == [(0, 1444272), (0, 1444275)]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (SECOND, "", "two lines"),
        ("0000:9D:00.0", "garbage     ", "no chip of the table"),
        ("178.5", "hot  ", "the power"),
        ("| 1444272       |", "| nobody        |", "no process"),
        ("Version: 25.2.0", "x", "no table of NPUs"),
    ],
)
def test_a_table_that_is_none(old: str, new: str, says: str) -> None:
    assert old in TABLE_A3
    with pytest.raises(Unreadable, match=says):
        ascend.table(TABLE_A3.replace(old, new))


def test_mappings_of_both_generations() -> None:
    two = (
        "\tNPU ID                         Chip ID                        Chip Logic ID                  Chip Phy-ID"
        "                    Chip Name                     \n"
        "\t7                              0                              6                              14     "
        "                        Ascend910\n"
        "\t7                              2                              -                              -      "
        "                        Mcu                           \n"
    )
    assert ascend.mapping(two) == [ascend.Mapped(7, 0, 14, "Ascend910")]
    one = ascend.mapping(recorded("npu-smi info -m"))
    assert [(c.npu, c.chip, c.device, c.name) for c in one] == [(i, 0, i, "Ascend 910B3") for i in range(8)]


def test_fault_codes_and_their_words() -> None:
    # mind-cluster: ascend-faultdiag, npu_info_after.txt
    found = ascend.health(
        "\tHealth Status                  : Alarm\n"
        "\tError Code                     : A4025021 8C03A000 8C084E00\n"
        "\tError Information              : ascend_monitor adda heart beat lost error\n\n"
        "\t                               : node type=adda, sensor type=Heartbeat Sensor, event state=Heartbeat Lost.\n"
    )
    assert (found.status, found.codes) == ("Alarm", ["A4025021", "8C03A000", "8C084E00"])
    assert "Heartbeat Lost" in found.words


def test_ecc_of_older_drivers_ends_with_the_chip() -> None:
    block = (
        "HBM Single Bit Error Count               : 4\nHBM Double Bit Error Count               : 1\n"
        "HBM Single Bit Aggregate Total Err Cnt   : 9\nHBM Double Bit Aggregate Total Err Cnt   : 2\n"
        "HBM Single Bit Isolated Pages Count      : 0\nHBM Double Bit Isolated Pages Count      : 3\n"
    )
    head = "NPU ID                                   : 1\nChip Count                               : 1\n\n"
    ddr = "DDR Single Bit Error Count               : 77\nDDR Double Bit Error Count               : 77\n"
    end = "Chip ID                                  : 0\n"
    assert ascend.ecc(head + ddr + block + end) == [ascend.Ecc(4, 1, 9, 2, 0, 3, 0)]
    assert len(ascend.ecc(head + block + end + block + end)) == 2
    with pytest.raises(Unreadable, match="cut short"):
        ascend.ecc(head + block)
    with pytest.raises(Unreadable, match="no HBM"):
        ascend.ecc(head + ddr + end)


def test_ecc_of_newer_drivers_ends_with_what_waits() -> None:
    text = recorded("npu-smi info -t ecc -i 5")
    assert ascend.ecc(text) == [ascend.Ecc(3, 0, 3, 0, 0, 0, 0)]
    with pytest.raises(Unreadable):
        ascend.ecc(text.replace("HBM Double Bit Next-Isolated Pages Count : 0\n", ""))


def test_hccs_with_and_without_its_lanes() -> None:
    found = ascend.hccs(recorded("npu-smi info -t hccs -i 0 -c 0"))
    assert (found.health, found.lanes, sum(found.errors)) == ("OK", [4] * 7, 0)
    short = (
        "\thccs health status             : OK\n\thccs retry count               : [0            0            7]\n"
        "\thccs error count               : [0            0            0]\n"
    )
    assert ascend.hccs(short) == ascend.Hccs("OK", None, [0, 0, 7], [0, 0, 0])


def test_boards() -> None:
    assert ascend.board(recorded("npu-smi info -t board -i 0")) == ascend.Board("24.1.rc3", "7.5.0.1.129", "OK")


@pytest.mark.parametrize(
    ("reader", "text", "value"),
    [
        (ascend.link, "link status: UP\n", True),
        (ascend.link, "link status: DOWN\r\n", False),
        (ascend.net_health, "net health status: Socket fail\n", "Socket fail"),
        (ascend.network, "Get ipconf failed, because no ip was preset there!", None),
        (ascend.network, "ipaddr:0.0.0.0\nnetmask:0.0.0.0\n", None),
        (ascend.gateway, "default gateway:11.12.165.1, Iface:eth0\n", "11.12.165.1"),
        (ascend.net_detect, "netdetect address: 11.12.165.1\n", "11.12.165.1"),
        (ascend.net_detect, "netdetect addr: 0.0.0.0\n", None),
        (ascend.tls, "dev_id:0, tls switch[1](0:disable, 1:enable), tls preconfigured[1](0:non-preset)\n", True),
        (ascend.fec, "fec mode: rs FEC mode\n", "rs"),
        (ascend.fec, "fec mode: no FEC mode\n", "no"),
        (ascend.speed, "Speed: 100000 Mb/s\n", 100e9),
        (ascend.speed, "Speed: 200 G\n", 200e9),
        (ascend.speed, "Speed: Unknown!\n", None),
        (ascend.duplex, "Duplex: Full\n", "full"),
        (ascend.duplex, "Duplex: Unknown!\n", None),
        (ascend.mtu, "mtu:4200\n", 4200),
        (ascend.mac, "mac addr: 2C:97:B1:4E:07:20\n", "2c:97:b1:4e:07:20"),
        (ascend.lldp, "", None),
    ],
)
def test_answers_of_one_line(reader: Callable[[str], object], text: str, value: object) -> None:
    assert reader(text) == value


def test_an_address_with_its_net() -> None:
    assert str(ascend.network("ipaddr:29.1.112.213\nnetmask:255.255.0.0\n")) == "29.1.112.213/16"
    with pytest.raises(Unreadable, match="mask"):
        ascend.network("ipaddr:29.1.112.213\nnetmask:255.x\n")


def test_the_history_of_a_link_in_both_dialects() -> None:
    newer = ascend.link_stat(recorded("hccn_tool -i 0 -link_stat -g"))
    assert (newer.ups, newer.downs, [r.up for r in newer.records]) == (2, 1, [True, False, True])
    older = ascend.link_stat(
        "[device 0]current time        : Wed Jun  7 10:08:28 2023\n[device 0]link up count       : 2\n"
        "[device 0]link change records :\n[device 0]    Wed Jun  7 10:08:12 2023    LINK UP\n"
        "[device 0]    Wed Jun  7 10:08:10 2023    LINK DOWN\n[device 0]    Tue Jun  6 16:31:55 2023    LINK UP\n"
    )
    assert (older.ups, older.downs) == (2, None)
    assert [r.since for r in older.records[:2]] == [16, 18]
    with pytest.raises(Unreadable, match="cut short"):
        ascend.link_stat(recorded("hccn_tool -i 0 -link_stat -g").rsplit("[devid", 1)[0])


def test_a_module_with_one_lane_and_one_with_four() -> None:
    four = ascend.optical(recorded("hccn_tool -i 0 -optical -g"))
    assert (len(four.tx), len(four.rx), len(four.bias)) == (4, 4, 4)
    assert (four.rx_limits, four.host_snr[0], four.flags["rx los"]) == ((0.1445, 3.5481), 22.1, 0)
    # MindCluster's log collection guide: a single lane, and no module in the cage
    one = ascend.optical(
        "optical info:\npresent              : not present\nTx Power             : 4.4035 mW\n"
        "Rx Power             : 1.0189 mW\nTxPower High Thres   : 3.5481 mW\nTxPower Low Thres    : 0.2818 mW\n"
        "RxPower Low Thres    : 0.1445 mW\n"
        "Tx Bias              : 7.9360 mA\nTx Los Flag          : 0x0\nRx Los Flag          : 0xff\n"
    )
    assert (one.present, one.tx, one.tx_limits, one.rx_limits) == (False, [4.4035], (0.2818, 3.5481), None)
    assert one.flags == {"tx los": 0, "rx los": 0xFF}


def test_a_module_that_tells_nothing_has_no_values() -> None:
    found = ascend.optical(
        "optical info:\npresent              : present\ntemperature          : not supported\nVcc : NA\n"
        "RxPower Low Thres    : NA\n"
    )
    assert (found.temperature, found.voltage, found.tx, found.flags, found.host_snr) == (None, None, [], {}, [])


def test_clock_recovery_chips_of_three_kinds() -> None:
    assert ascend.cdr_snr(recorded("hccn_tool -i 0 -scdr -t 5"))[:2] == [19.5, 19.8]
    names = [f"Cdr {side} SNR Lane{i} : " for side in ("Host", "Media") for i in range(1, 5)]
    assert ascend.cdr_snr("".join(f"{n}not supported\n" for n in names)) == []
    assert ascend.cdr_snr("".join(f"{n}412345\n" for n in names)) == [], "SD5901 tells no decibels"


def test_the_neighbour() -> None:
    found = ascend.lldp(recorded("hccn_tool -i 3 -lldp -g"))
    assert found == ascend.Peer("400GE1/2/5:2", "SPINE-LEAF-01")


def test_counters() -> None:
    found = ascend.statistics(recorded("hccn_tool -i 0 -stat -g"))
    assert (found["roce_new_pkt_rty_num"], found["mac_rx_fcs_err_pkt_num"]) == (12, 0)


def test_super_pods() -> None:
    text = "SDID : 16777216\nSuper Pod Size : 384\nSuper Pod ID : 0\nServer Index : 4\n"
    assert ascend.super_pod(text) == ascend.SuperPod(0, 384, 4)


def test_version_files() -> None:
    assert ascend.version_file("Version=24.1.rc1\nInnerversion=V100R001C15SPC006B220\n")["version"] == "24.1.rc1"
    for text in ("", "version=\n", "Version: 3\n"):
        with pytest.raises(Unreadable):
            ascend.version_file(text)


# ------------------------------------------------------------------------------------------------------------- any text

READERS: dict[Callable[[str], object], str] = {
    ascend.table: TABLE_A3,
    ascend.mapping: recorded("npu-smi info -m"),
    ascend.health: recorded("npu-smi info -t health -i 0 -c 0"),
    ascend.ecc: recorded("npu-smi info -t ecc -i 0"),
    ascend.board: recorded("npu-smi info -t board -i 0"),
    ascend.hccs: recorded("npu-smi info -t hccs -i 0 -c 0"),
    ascend.super_pod: "SDID : 1\nSuper Pod Size : 384\nSuper Pod ID : 0\nServer Index : 4\n",
    ascend.link: recorded("hccn_tool -i 0 -link -g"),
    ascend.net_health: recorded("hccn_tool -i 0 -net_health -g"),
    ascend.network: recorded("hccn_tool -i 0 -ip -g"),
    ascend.gateway: recorded("hccn_tool -i 0 -gateway -g"),
    ascend.net_detect: recorded("hccn_tool -i 0 -netdetect -g"),
    ascend.tls: recorded("hccn_tool -i 0 -tls -g"),
    ascend.fec: recorded("hccn_tool -i 0 -fec -g"),
    ascend.speed: recorded("hccn_tool -i 0 -speed -g"),
    ascend.duplex: recorded("hccn_tool -i 0 -duplex -g"),
    ascend.mtu: recorded("hccn_tool -i 0 -mtu -g"),
    ascend.mac: recorded("hccn_tool -i 0 -mac -g"),
    ascend.lldp: recorded("hccn_tool -i 0 -lldp -g"),
    ascend.link_stat: recorded("hccn_tool -i 0 -link_stat -g"),
    ascend.statistics: recorded("hccn_tool -i 0 -stat -g"),
    ascend.optical: recorded("hccn_tool -i 0 -optical -g"),
    ascend.cdr_snr: recorded("hccn_tool -i 0 -scdr -t 5"),
    ascend.transmitter: recorded("hccn_tool -i 0 -optical -g dfx_cfg"),
    ascend.version_file: "Version=24.1.rc1\n",
}
JUNK = st.one_of(
    st.text(max_size=300),
    st.binary(max_size=300).map(lambda b: b.decode("utf-8", "replace")),
    st.text(alphabet=":|[]-+= 0123456789abc\t\r\n", max_size=300),
)


def reads_or_refuses(reader: Callable[[str], object], text: str) -> None:
    with contextlib.suppress(Unreadable):
        reader(text)


@given(junk=JUNK)
def test_any_text_is_read_or_refused(junk: str) -> None:
    for reader in READERS:
        reads_or_refuses(reader, junk)


@given(junk=JUNK, at=st.floats(0, 1), cut=st.integers(0, 400))
def test_good_text_spoiled_is_read_or_refused(junk: str, at: float, cut: int) -> None:
    for reader, text in READERS.items():
        where = int(len(text) * at)
        reads_or_refuses(reader, text[:where] + junk + text[where + cut :])


@pytest.mark.parametrize("reader", READERS, ids=lambda r: r.__name__)
def test_windows_line_ends_read_the_same(reader: Callable[[str], object]) -> None:
    text = READERS[reader]
    assert reader(text.replace("\n", "\r\n")) == reader(text)


LINES = [r for r in READERS if r is not ascend.version_file]


@pytest.mark.parametrize("reader", LINES, ids=lambda r: r.__name__)
def test_a_line_that_was_cut_is_refused(reader: Callable[[str], object]) -> None:
    text = READERS[reader].rstrip()
    for end in range(1, len(text)):
        if not text[:end].endswith("\n") and text[:end].strip():
            with pytest.raises(Unreadable):
                reader(text[:end])
