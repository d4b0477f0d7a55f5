"""Addresses by which nodes meet, and NICs that others use."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from cwai_bench import native
from cwai_bench.errors import DeviceError
from cwai_bench.probes.nic import Place, busy, meeting, places, speed_of, without_shared

ETH = Place("eth0", "10.1.0.5", 24, 1.25e9)
FAST = Place("eth1", "10.2.0.5", 24, 12.5e9)


def nic(root: Path, name: str, *, speed: str | None, received: int = 0, sent: int = 0) -> Path:
    statistics = root / name / "statistics"
    statistics.mkdir(parents=True, exist_ok=True)
    (statistics / "rx_bytes").write_text(f"{received}\n")
    (statistics / "tx_bytes").write_text(f"{sent}\n")
    if speed is not None:
        (root / name / "speed").write_text(speed)
    return statistics


def traffic(statistics: Path, name: str, amount: int) -> threading.Thread:
    def move() -> None:
        time.sleep(0.05)
        (statistics / name).write_text(f"{amount}\n")

    thread = threading.Thread(target=move)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("text", "expected"), [("10000\n", 1.25e9), ("-1\n", 0.0), ("", 0.0), ("unknown", 0.0), (None, 0.0)]
)
def test_speed_is_known_or_zero(tmp_path: Path, text: str | None, expected: float) -> None:
    nic(tmp_path, "eth0", speed=text)
    assert speed_of("eth0", tmp_path) == expected


@pytest.mark.parametrize(
    ("speed", "moved", "found"),
    [
        ("1000", 600_000, False),  # 3 MB/s of 125 MB/s: 2.4 %
        ("1000", 2_500_000, True),  # 12.5 MB/s: 10 %
        ("100000", 2_500_000, False),  # 0.1 % of a fast one
        ("-1", 1_000_000, False),  # 5 MB/s, speed unknown
        ("-1", 4_000_000, True),  # 20 MB/s, speed unknown
    ],
)
@pytest.mark.parametrize("counter", ["rx_bytes", "tx_bytes"])
def test_busy_is_a_share_of_the_speed(tmp_path: Path, speed: str, moved: int, found: bool, counter: str) -> None:
    statistics = nic(tmp_path, "eth0", speed=speed)
    nic(tmp_path, "eth1", speed=speed)
    mover = traffic(statistics, counter, moved)
    loads = busy(["eth0", "eth1", "eth0"], window=0.2, root=tmp_path)
    mover.join()
    assert list(loads) == (["eth0"] if found else [])
    if found:
        assert moved / 0.5 < loads["eth0"] < moved / 0.15


def test_a_nic_that_is_not_there_is_not_busy(tmp_path: Path) -> None:
    assert busy(["eth9"], window=0.01, root=tmp_path) == {}
    assert busy([], root=tmp_path) == {}


def test_nodes_meet_on_the_fastest_network_that_both_are_in() -> None:
    other = [Place("eth0", "10.1.0.6", 24, 1.25e9), Place("eth1", "10.2.0.6", 24, 12.5e9)]
    assert meeting([ETH, FAST], other) == (FAST, other[1])
    assert meeting([ETH, FAST], other[:1]) == (ETH, other[0])


def test_nodes_of_different_networks_meet_through_a_router() -> None:
    far = Place("eth0", "172.20.3.4", 16, 1.25e9)
    assert meeting([ETH, FAST], [far]) == (ETH, far)


def test_families_do_not_mix() -> None:
    v6 = Place("eth0", "fd00::6", 64, 1.25e9)
    assert meeting([ETH], [v6]) is None
    assert meeting([ETH, Place("eth0", "fd00::5", 64, 1.25e9)], [v6]) == (Place("eth0", "fd00::5", 64, 1.25e9), v6)
    assert meeting([], [ETH]) is None


def test_an_address_that_several_nodes_have_joins_none() -> None:
    bridge = Place("docker0", "172.17.0.1", 16, 0.0)
    mine, theirs = Place("eth0", "10.1.0.5", 24, 0.0), Place("eth0", "10.1.0.6", 24, 0.0)
    assert without_shared([[bridge, mine], [bridge, theirs]]) == [[mine], [theirs]]


def test_places_leave_out_what_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def address(name: str, text: str, *, up: bool = True, loopback: bool = False) -> native.Address:
        return native.Address(name, text, 24, ":" in text, up, loopback)

    monkeypatch.setattr(
        native,
        "interfaces",
        lambda: [
            address("lo", "127.0.0.1", loopback=True),
            address("eth0", "fe80::1%eth0"),
            address("eth0", "fd00::5"),
            address("eth0", "10.1.0.5"),
            address("eth1", "10.2.0.5", up=False),
            address("eth2", "169.254.7.7"),
        ],
    )
    assert [(p.nic, p.address) for p in places(None)] == [("eth0", "10.1.0.5"), ("eth0", "fd00::5")]
    assert [p.address for p in places("10.1.0.5")] == ["10.1.0.5"]
    assert [p.address for p in places("lo")] == ["127.0.0.1"]
    assert places("eth1") == []
    with pytest.raises(DeviceError, match="ib7") as caught:
        places("ib7")
    assert caught.value.next_step is not None
    assert "eth0" in caught.value.next_step.en
