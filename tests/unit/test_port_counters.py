"""Counters of both ends of a path: read from made-up systems, and what is made of how they move."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cwai_bench.discover import rdma
from cwai_bench.judge.ports import GIB, Sign, added, explained
from cwai_bench.model import Reading
from cwai_bench.port_counters import is_telling
from cwai_bench.probes import counters
from cwai_bench.probes.counters import Port, moved, snapshot, watched
from cwai_bench.sources import Command

MLX5 = {
    "counters/symbol_error": "65535\n",
    "counters/port_rcv_errors": "14\n",
    "counters/port_xmit_wait": "N/A (no PMA)\n",
    "counters/port_xmit_data": "1000\n",
    "hw_counters/local_ack_timeout_err": "4294967290\n",
    "hw_counters/rx_icrc_encapsulated": "0\n",
    "hw_counters/lifespan": "10\n",
}
RXE = {
    "hw_counters/retry_exceeded_err": "0\n",
    "hw_counters/completer_retry_err": "3\n",
    "hw_counters/sent_pkts": "7\n",
}
BNXT = {"hw_counters/to_retransmits": "5\n", "hw_counters/rx_roce_discards": "1\n", "hw_counters/active_qps": "3\n"}
HNS = {"hw_counters/rx_err_pkt": "0\n", "hw_counters/rx_cnp_pkt": "9\n", "hw_counters/aeqe": "2\n"}
STATISTICS = "NIC statistics:\n     rx_discards_phy: 12\n     rx_prio3_pause: 100\n     ch0_events: 5\n"


def put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four devices; behind mlx5_0 is eth0, of which ethtool tells what the file ``ethtool`` holds."""
    monkeypatch.setattr(rdma, "DEVICES", tmp_path / "infiniband")
    monkeypatch.setattr(counters, "CLASS_NET", tmp_path / "net")
    for name, files in {"mlx5_0": MLX5, "rxe0": RXE, "bnxt_re0": BNXT, "hns_0": HNS}.items():
        put(tmp_path / "infiniband" / name / "ports" / "1", files)
    put(tmp_path / "net" / "eth0", {"statistics/rx_crc_errors": "1\n", "carrier_down_count": "2\n", "device/x": ""})
    put(tmp_path / "net" / "lo", {"statistics/rx_crc_errors": "0\n"})
    put(tmp_path, {"ethtool": STATISTICS})

    def run(command: Command, timeout: float) -> Reading:
        assert command.argv == ("ethtool", "-S", "eth0")
        return Reading(command.key, "ok", (tmp_path / "ethtool").read_text(), exit_code=0)

    monkeypatch.setattr(counters, "run", run)
    return tmp_path


def port_of(system: Path, device: str) -> Path:
    return system / "infiniband" / device / "ports" / "1"


def test_a_snapshot_of_a_port_and_of_the_interface_behind_it(system: Path) -> None:
    found = snapshot("mlx5_0", 1, "eth0")
    assert found["local_ack_timeout_err"] == 4294967290
    assert found["net/rx_crc_errors"] == 1
    assert found["net/carrier_down_count"] == 2
    assert found["ethtool/rx_discards_phy"] == 12
    assert "port_xmit_wait" not in found, "what says N/A is absent, which is not zero"
    assert "lifespan" not in found


def test_software_is_not_asked_by_ethtool_and_what_is_not_there_tells_nothing(system: Path) -> None:
    assert snapshot("", 1, "lo") == {"net/rx_crc_errors": 0}
    assert snapshot("mlx5_9", 1, "") == {}
    assert snapshot("rxe0", 1, "../eth0") == snapshot("rxe0", 1, "")


@pytest.mark.parametrize("answer", ["no stats available\n", "", "NIC statistics:\n     rx"])
def test_an_ethtool_that_tells_nothing_costs_only_its_own(system: Path, answer: str) -> None:
    put(system, {"ethtool": answer})
    found = snapshot("mlx5_0", 1, "eth0")
    assert found["port_rcv_errors"] == 14
    assert not [name for name in found if name.startswith("ethtool/")]


@pytest.mark.parametrize(("told", "waited"), [("10", 0.010), ("200", 0.2), ("999999", 1.0), ("soon", 0.010)])
def test_the_kernel_is_given_time_to_look_afresh(
    system: Path, monkeypatch: pytest.MonkeyPatch, told: str, waited: float
) -> None:
    put(port_of(system, "mlx5_0"), {"hw_counters/lifespan": f"{told}\n"})
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    snapshot("mlx5_0", 1, "")
    assert slept == [pytest.approx(waited)]


@pytest.mark.parametrize(
    ("name", "before", "after", "more"),
    [
        ("local_ack_timeout_err", 4294967290, 4, 10),  # 32 bits, and round again
        ("local_ack_timeout_err", 100, 3, None),  # not round again: reset
        ("local_ack_timeout_err", 1 << 33, 1, None),  # a driver that counts wider
        ("symbol_error", 65535, 65535, None),  # at its maximum: at least, and who knows
        ("symbol_error", 65530, 65535, 5),
        ("symbol_error", 70000, 70001, 1),  # wider than the standard has it
        ("link_downed", 255, 255, None),
        ("retry_exceeded_err", 9, 2, None),  # 64 bits that went back: reset
        ("rx_icrc_encapsulated", 0, 1, 1),
    ],
)
def test_by_how_much_a_counter_moved(name: str, before: int, after: int, more: int | None) -> None:
    assert moved({name: before}, {name: after}) == {name: more}


def test_what_did_not_move_or_tells_of_traffic_alone_is_left_out() -> None:
    before = {"out_of_buffer": 3, "sent_pkts": 1, "ethtool/ch0_events": 1, "ethtool/rx_prio3_bytes": 5}
    assert moved(before, {**before, "sent_pkts": 9, "ethtool/ch0_events": 2, "ethtool/rx_prio3_bytes": 50}) == {}


def test_a_counter_that_is_there_once_is_not_known() -> None:
    assert moved({"out_of_sequence": 3}, {"duplicate_request": 5}) == {
        "out_of_sequence": None,
        "duplicate_request": None,
    }


def test_ports_are_watched_also_while_something_fails(system: Path) -> None:
    ports = {
        "node1/mlx5_0": Port("mlx5_0", 1, "eth0"),
        "node1/rxe0": Port("rxe0"),
        "node1/bnxt_re0": Port("bnxt_re0"),
        "node1/hns_0": Port("hns_0"),
    }
    seen = {}

    def fail() -> None:
        with watched(ports) as moves:
            assert moves == {}
            seen["moves"] = moves
            meanwhile()
            raise ZeroDivisionError

    def meanwhile() -> None:
        put(port_of(system, "mlx5_0"), {"hw_counters/local_ack_timeout_err": "2\n"})
        put(port_of(system, "rxe0"), {"hw_counters/completer_retry_err": "5\n", "hw_counters/sent_pkts": "99\n"})
        put(port_of(system, "bnxt_re0"), {"hw_counters/to_retransmits": "6\n", "hw_counters/active_qps": "1\n"})
        put(port_of(system, "hns_0"), {"hw_counters/rx_err_pkt": "1\n", "hw_counters/aeqe": "3\n"})
        put(system, {"ethtool": STATISTICS.replace("100", "140")})

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen["moves"] == {
        "node1/mlx5_0": {"local_ack_timeout_err": 8, "symbol_error": None, "ethtool/rx_prio3_pause": 40},
        "node1/rxe0": {"completer_retry_err": 2},
        "node1/bnxt_re0": {"to_retransmits": 1},
        "node1/hns_0": {"rx_err_pkt": 1},
    }


def test_a_port_that_vanishes_meanwhile(system: Path) -> None:
    with watched({"node1/rxe0": Port("rxe0")}) as moves:
        for path in sorted(port_of(system, "rxe0").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        port_of(system, "rxe0").rmdir()
    assert moves["node1/rxe0"] == {"completer_retry_err": None, "retry_exceeded_err": None}


# ------------------------------------------------------------------------------------------------ what they say


def one(port: str, moves: dict[str, int | None], moved_bytes: float = 0.0) -> Sign:
    (sign,) = explained({port: moves}, moved_bytes)
    assert sign.text.en.startswith(f"{port}: ")
    assert sign.text.zh.startswith(f"{port}：")
    assert all(is_telling(name) for name in moves)
    return sign


@pytest.mark.parametrize(
    ("moves", "words"),
    [
        ({"local_ack_timeout_err": 8, "req_transport_retries_exceeded": 1}, "lost on the way"),
        ({"retry_exceeded_err": 1}, "lost on the way"),
        ({"to_retransmits": 3}, "lost on the way"),
        ({"rx_icrc_encapsulated": 1}, "ICRC"),
        ({"symbol_error": 4}, "cable"),
        ({"ethtool/rx_pcs_symbol_err_phy": 4}, "cable"),
        ({"port_xmit_discards": 2}, "dropped at the port"),
        ({"ethtool/rx_discards_phy": 2}, "want of a buffer"),
        ({"ethtool/rx_pci_signal_integrity": 1}, "PCIe"),
        ({"rx_err_pkt": 1}, "could not handle"),
        ({"link_downed": 1}, "link went down"),
        ({"ethtool/tx_pause_storm_error_events": 1}, "pause storm"),
        ({"npu/roce_new_pkt_rty_num": 3}, "lost on the way"),
        ({"npu/mac_rx_fcs_err_pkt_num": 3}, "cable"),
    ],
)
def test_a_fault_is_a_fault_however_fast_the_path_is(moves: dict[str, int | None], words: str) -> None:
    sign = one("node2/mlx5_0", moves)
    assert sign.fault
    assert words in sign.text.en
    assert all(
        f"{name.rpartition('/')[2]} {more}" in sign.text.en or "link went down" in words for name, more in moves.items()
    )


@pytest.mark.parametrize(
    ("moves", "words"),
    [
        ({"out_of_sequence": 800}, "adaptive routing"),
        ({"rnr_nak_retry_err": 8}, "receiving program"),
        ({"completer_retry_err": None}, "maximum or reset"),
        ({"port_xmit_wait": 5000, "port_xmit_data": 4000}, "waited more than it sent"),
        ({"ethtool/outbound_pci_stalled_wr_events": 3}, "this host is slow"),
        ({"ethtool/tx_prio3_pause": 500}, "this host takes packets too slowly"),
        ({"npu/mac_tx_pfc_pri4_pkt_num": 500}, "priority 4: 500"),
        ({"npu/roce_out_of_order_num": 5}, "adaptive routing"),
        ({"ethtool/rx_prio3_pause": 500}, "a switch or the other end is slow"),
    ],
)
def test_what_may_explain_a_slow_path_is_no_fault_in_itself(moves: dict[str, int | None], words: str) -> None:
    sign = one("node1/mlx5_0", moves)
    assert not sign.fault
    assert words in sign.text.en


def test_pause_on_priority_0_says_that_traffic_is_not_marked() -> None:
    sign = one("node1/mlx5_0", {"ethtool/rx_prio0_pause": 70})
    assert sign.fault
    assert "DSCP or PCP" in sign.text.en
    assert "rx pause 70" in sign.text.en


def test_congestion_is_told_by_the_gibibyte() -> None:
    sign = one("node2/mlx5_0", {"np_cnp_sent": 300}, 100 * GIB)
    assert not sign.fault
    assert "3 CNP/GiB" in sign.text.en


def test_a_flap_seen_in_three_places_is_one() -> None:
    moves: dict[str, int | None] = {"link_downed": 1, "ethtool/link_down_events_phy": 1, "net/carrier_down_count": 1}
    assert "(1×)" in one("node1/mlx5_0", moves).text.en


def test_a_port_that_sent_more_than_it_waited_and_one_where_nothing_moved_say_nothing() -> None:
    assert explained({"a/b": {"port_xmit_wait": 10, "port_xmit_data": 4000}, "c/d": {}}, 1.0) == []


def test_faults_come_first_and_each_names_its_end() -> None:
    signs = explained({"n1/a": {"out_of_sequence": 1}, "n2/a": {"rx_icrc_encapsulated": 1}}, 0.0)
    assert [(s.text.en[:4], s.fault) for s in signs] == [("n2/a", True), ("n1/a", False)]


def test_what_moved_in_several_measurements() -> None:
    both = added([{"n1/a": {"out_of_sequence": 1, "symbol_error": None}}, {"n1/a": {"out_of_sequence": 2}}, {}])
    assert both == {"n1/a": {"out_of_sequence": 3, "symbol_error": None}}
