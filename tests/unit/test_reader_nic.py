"""Readers of what the tools of NICs print: real formats, and everything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwai_bench.discover.recorded import slug
from cwai_bench.readers import Unreadable, nic
from cwai_bench.sources import Command
from tests.unit.conftest import NODES

Reader = Callable[[str], object]


def recorded(node: str, *argv: str) -> str:
    return (NODES / node / "commands" / slug(Command(*argv)) / "stdout").read_text()


GOOD: dict[str, tuple[Reader, str]] = {
    "rate": (nic.rate, "400 Gb/sec (4X NDR)\n"),
    "traffic_class": (nic.traffic_class, "Global tclass=106\n"),
    "statistics": (nic.statistics, recorded("a800_roce", "ethtool", "-S", "ens11np0")),
    "pause": (nic.pause, recorded("a800_roce", "ethtool", "-a", "ens11np0")),
    "module": (nic.module, recorded("good", "ethtool", "-m", "ibp26s0")),
    "copper": (nic.module, recorded("good", "ethtool", "-m", "ens1f0np0")),
    "mlxlink": (nic.bit_errors, recorded("good", "mlxlink", "-d", "mlx5_0", "-c")),
    "qos": (nic.qos, recorded("a800_roce", "mlnx_qos", "-i", "ens11np0")),
    "devinfo": (nic.active_mtus, recorded("good", "ibv_devinfo")),
    "lldp": (nic.neighbours, recorded("a800_roce", "lldpcli", "-f", "json", "show", "neighbors")),
    "ofed": (nic.ofed, recorded("good", "ofed_info", "-s")),
    "supplicant": (nic.supplicant, recorded("a800_roce", "wpa_cli", "-i", "ens11np0", "status")),
    "self_test": (nic.self_test, recorded("good", "hca_self_test.ofed")),
    "domains": (nic.domains, recorded("efa", "fi_info", "-p", "efa", "-t", "FI_EP_RDM")),
    "ufm": (nic.ufm_events, recorded("ufm", "tail", "-n", "5000", "/opt/ufm/log/event.log")),
    "modinfo": (nic.module_version, recorded("good", "modinfo", "-F", "version", "mlx5_core")),
}


def test_rates() -> None:
    assert nic.rate("400 Gb/sec (4X NDR)\n") == (4e11, 4)
    assert nic.rate("2.5 Gb/sec (1X SDR)") == (2.5e9, 1)
    for text in ("", "400", "400 Gb/sec", "400 Gb/sec (4X", "-1 Gb/sec (4X NDR)", "1 Gb/sec (4X NDR) x"):
        with pytest.raises(Unreadable):
            nic.rate(text)


def test_traffic_classes() -> None:
    # what mlx5 shows when a rule by address stands before the global one
    assert nic.traffic_class("tclass=10 dst_ip=10.0.0.1\nGlobal tclass=106\n") == 106
    for text in ("", "tclass=106\n", "Global tclass=300\n", "Global tclass=\n"):
        with pytest.raises(Unreadable):
            nic.traffic_class(text)


def test_statistics() -> None:
    found = nic.statistics("NIC statistics:\n     rx_packets: 5\n     [0]: tx_packets: 7\n     temp: -3\n")
    assert found == {"rx_packets": 5, "[0]: tx_packets": 7, "temp": -3}
    for text in ("", "NIC statistics:\n", "NIC statistics:\n     a: 1\n     b: 1", "no stats available\n", "a: 1\n"):
        with pytest.raises(Unreadable):
            nic.statistics(text)


def test_pause() -> None:
    assert nic.pause("Pause parameters for eth0:\nAutonegotiate:\ton\nRX:\t\ton\nTX:\t\toff\n") == (True, False)
    with pytest.raises(Unreadable):
        nic.pause("Pause parameters for eth0:\nRX:\t\ton\n")


def test_modules() -> None:
    osfp = nic.module(GOOD["module"][1])
    assert (osfp.identifier, osfp.part, osfp.copper) == (
        "0x19 (OSFP 8X Pluggable Transceiver)",
        "MMA4Z00-NS400",
        False,
    )
    assert list(osfp.receive) == list(osfp.send) == list(osfp.bias) == ["1", "2", "3", "4"]
    assert osfp.receive["1"] == 0.53
    assert osfp.receive_limits == (7.0, -10.0, 6.0, -7.0)
    assert osfp.temperature_limits == (75.0, -5.0, 70.0, 0.0)
    assert (osfp.temperature, osfp.flags) == (44.0, [])
    dac = nic.module(GOOD["copper"][1])
    assert (dac.copper, dac.receive, dac.receive_limits) == (True, {}, None)


def test_a_module_without_light_and_one_that_complains() -> None:
    text = GOOD["module"][1]
    dark = nic.module(text.replace("1.1300 mW / 0.53 dBm", "0.0000 mW / -inf dBm"))
    assert dark.receive["1"] == nic.NO_LIGHT
    on = nic.module(
        text.replace("Module temperature high warning           : Off", "Module temperature high warning : On")
    )
    assert on.flags == ["Module temperature high warning"]


def test_an_sfp_with_diagnostics() -> None:
    """As ethtool prints SFF-8472: one channel, without a number."""
    text = (
        "\tIdentifier                                : 0x03 (SFP)\n"
        "\tLaser bias current                        : 6.750 mA\n"
        "\tLaser output power                        : 0.5841 mW / -2.34 dBm\n"
        "\tReceiver signal average optical power     : 0.4021 mW / -3.96 dBm\n"
        "\tModule temperature                        : 31.60 degrees C / 88.88 degrees F\n"
        "\tAlarm/warning flags implemented           : No\n"
    )
    found = nic.module(text)
    assert (found.receive, found.send, found.bias) == ({"1": -3.96}, {"1": -2.34}, {"1": 6.75})
    assert found.receive_limits is None


@pytest.mark.parametrize("end", ["Rcvr signal", "Laser bias current high alarm threshold", "Vendor name", "Identifier"])
def test_a_module_cut_short_is_unreadable(end: str) -> None:
    text = GOOD["module"][1]
    with pytest.raises(Unreadable):
        nic.module(text[: text.index(end)])


def test_qos() -> None:
    found = nic.qos(GOOD["qos"][1])
    assert (found.trust, found.lossless) == ("dscp", (3,))
    assert found.priority_of is not None
    assert (found.priority_of[26], found.priority_of[63]) == (3, 7)
    by_pcp = GOOD["qos"][1].replace("state: dscp", "state: pcp")
    start, end = by_pcp.index("dscp2prio"), by_pcp.index("default priority")
    assert nic.qos(by_pcp[:start] + by_pcp[end:]).priority_of is None
    for text in ("", "Priority trust state: dscp\n", GOOD["qos"][1].replace("prio:7", "prio:x")):
        with pytest.raises(Unreadable):
            nic.qos(text)


def test_bit_errors() -> None:
    text = GOOD["mlxlink"][1]
    assert nic.bit_errors(text) == ("No issue was observed", 4e-10, 1.5e-254, 1.5e-254)
    coloured = text.replace(": Active", ": \x1b[32mActive\x1b[0m").replace("Symbol BER ", "Symbol BERs")
    assert nic.bit_errors(coloured).symbol is None
    for bad in ("", text.replace("4E-10", "N/A"), text.replace("Recommendation", "R"), text[:-4]):
        with pytest.raises(Unreadable):
            nic.bit_errors(bad)


def test_active_mtus() -> None:
    found = nic.active_mtus(GOOD["devinfo"][1])
    assert len(found) == 10
    assert found["mlx5_0", 1] == 4096
    with pytest.raises(Unreadable):
        nic.active_mtus("No IB devices found\n")


def test_neighbours() -> None:
    found = nic.neighbours(GOOD["lldp"][1])
    assert found["ens11np0"] == [("leaf01", "swp11")]
    # one interface is an object; a chassis that tells no name is known by its id
    told = '{"chassis": {"id": {"type": "mac", "value": "9c:05"}}, "port": {"descr": "x"}}'
    one = f'{{"lldp": {{"interface": {{"eth0": {told}}}}}}}'
    assert nic.neighbours(one) == {"eth0": [("9c:05", "x")]}
    assert nic.neighbours('{"lldp": {}}') == {}
    for text in ("", "[]", "{}", '{"lldp": {"interface": [1]}}', '{"lldp": {"interface": {"eth0": {}}}}', "[" * 9999):
        with pytest.raises(Unreadable):
            nic.neighbours(text)


def test_versions() -> None:
    assert nic.ofed("MLNX_OFED_LINUX-24.10-1.1.4.0:\n") == "MLNX_OFED_LINUX-24.10-1.1.4.0"
    assert nic.ofed("OFED-internal-25.01-0.6.0:\n") == "OFED-internal-25.01-0.6.0"
    assert nic.module_version("24.10-1.1.4\n") == "24.10-1.1.4"
    for reader, text in (
        (nic.ofed, "MLNX_OFED_LINUX-24.10"),
        (nic.module_version, "24.10"),
        (nic.module_version, "\n"),
    ):
        with pytest.raises(Unreadable):
            reader(text)


def test_what_other_tools_found_out() -> None:
    assert nic.supplicant(GOOD["supplicant"][1]) == ("Authorized", "AUTHENTICATED", "SUCCESS")
    told = nic.self_test(GOOD["self_test"][1].replace("PASS", "\x1b[32mPASS\x1b[0m"))
    assert told["Host Driver Initialization"] == told["Error Counter Check on CA #7 (HCA)"] == "PASS"
    assert nic.domains(GOOD["domains"][1]) == ["rdmap144s27", "rdmap160s27", "rdmap16s27", "rdmap32s27"]
    events = nic.ufm_events(GOOD["ufm"][1])
    assert [e.code for e in events] == [328, 329, 328, 517, 110]
    assert events[1][:4] == ("2025-12-31 07:46:24", 329, "WARNING", "default / Switch: leaf07 / 17/1")
    for reader, text in (
        (nic.supplicant, "wpa_state=INACTIVE\n"),
        (nic.self_test, "------------------ DONE ---------------------\n"),
        (nic.domains, "provider: efa\n"),
        (nic.ufm_events, "2025-12-31 07:46:24.442 [1] WARNING\n"),
    ):
        with pytest.raises(Unreadable):
            reader(text)


def values_or_unreadable(reader: Reader, text: str) -> object | None:
    try:
        return reader(text)
    except Unreadable:
        return None


@pytest.mark.parametrize("name", GOOD)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_the_text_a_reader_gives_values_or_says_that_it_cannot(name: str, data: st.DataObject) -> None:
    reader, good = GOOD[name]
    at = data.draw(st.integers(0, len(good)))
    junk = data.draw(st.text(max_size=30) | st.binary(max_size=30).map(lambda b: b.decode("utf-8", "backslashreplace")))
    for text in (
        junk,
        good[:at],
        good[:at] + junk + good[at:],
        good[at:],
        good.replace("\n", "\r\n"),
        good[:at] + junk,
    ):
        values_or_unreadable(reader, text)


@pytest.mark.parametrize("name", [n for n in GOOD if n not in ("rate", "traffic_class", "ofed")])
def test_windows_line_ends_change_nothing(name: str) -> None:
    reader, good = GOOD[name]
    assert reader(good.replace("\n", "\r\n")) == reader(good)


def test_the_fixtures_are_there() -> None:
    assert Path(NODES / "a800_roce").is_dir()
