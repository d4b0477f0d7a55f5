"""What two ports should reach: the figures of the public tables, and what must hold whatever the terms."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwai_bench.goodput import (
    FAIL_BELOW,
    FULL_MTU,
    JUMBO,
    WARN_BELOW,
    Expected,
    Thresholds,
    cause_of,
    expected_of,
)
from cwai_bench.model import Scalar

GBIT = 1e9 / 8
V4, V6 = "::ffff:10.100.1.11", "2001:db8::11"


def roce(gbit: Scalar = 400, mtu: Scalar = 4096, size: Scalar = 65536, **more: Scalar) -> dict[str, Scalar]:
    return {
        "transport": "verbs",
        "verb": "write",
        "bytes": size,
        "streams": 4,
        "direction": "one-way",
        "mtu": mtu,
        "link_layer": "Ethernet",
        "roce": "v2",
        "gid": V4,
        "link_speed": float(gbit) * GBIT,
        **more,
    }


def infiniband(gbit: Scalar = 400, **more: Scalar) -> dict[str, Scalar]:
    return {**roce(gbit), "link_layer": "InfiniBand", "roce": "", "gid": "fe80::1", **more}


def reached(parameters: dict[str, Scalar]) -> Expected:
    found = expected_of(parameters)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("gbit", "v4", "v4_small", "v6", "ib"),
    [
        (100, 98.0, 92.6, 97.5, 99.3),
        (200, 196.0, 185.1, 195.1, 198.7),
        (400, 392.1, 370.3, 390.2, 397.4),
        (800, 784.1, 740.5, 780.4, 794.8),
    ],
)
def test_writes_of_64_kib(gbit: int, v4: float, v4_small: float, v6: float, ib: float) -> None:
    cases = {
        v4: roce(gbit),
        v4_small: roce(gbit, mtu=1024),
        v6: roce(gbit, gid=V6),
        ib: infiniband(gbit),
    }
    for figure, parameters in cases.items():
        found = reached(parameters)
        assert found.value / GBIT == pytest.approx(figure, abs=0.06)
        assert found.limit == "wire"


def test_the_terms_are_said_in_both_languages() -> None:
    found = reached(roce())
    assert found.terms.en == "400 Gb/s × 65536 / (65536 + 16 × 82 + 16) B at MTU 4096 = 392.1 Gb/s"
    assert found.terms.zh == "400 Gb/s × 65536 / (65536 + 16 × 82 + 16) B（MTU 4096）= 392.1 Gb/s"


def test_headers_by_version_and_verb() -> None:
    """RoCE v1 has the GRH in place of IP and UDP; only writes carry RETH; reads bring AETH, twice when in parts."""
    one: dict[str, Scalar] = {"size": 4096, "gbit": 100}

    def wire(parameters: dict[str, Scalar]) -> float:
        """Bytes on the wire for one message."""
        return 4096 * 100 * GBIT / reached(parameters).value

    assert wire(roce(**one, roce="v1")) == pytest.approx(4096 + 38 + 40 + 12 + 4 + 16)
    assert wire(roce(**one, verb="send")) == pytest.approx(4096 + 82)
    assert wire(roce(**one, verb="read")) == pytest.approx(4096 + 82 + 4)
    assert wire(roce(**one, mtu=1024, verb="read")) == pytest.approx(4096 + 4 * 82 + 8)
    assert wire(roce(**one, gid=3)) == wire(roce(**one, gid=V6)), "an unknown family demands least"
    assert wire(roce(**one, direction="two-way")) == pytest.approx(4096 + 82 + 16 + 82 + 4), "acknowledgements"


@pytest.mark.parametrize(
    ("speed", "width", "mps", "gbit"),
    [("8.0 GT/s PCIe", 16, 0, 105.5), ("16.0 GT/s PCIe", 16, 256, 229.5), ("32.0 GT/s PCIe", 16, 256, 460.0)],
)
def test_the_slot_is_a_limit(speed: str, width: int, mps: int, gbit: float) -> None:
    """NVIDIA's rule (125, 251 and 503 Gb/s of 16 lanes), less the headers of PCIe's own packets."""
    slot: dict[str, Scalar] = {"server_pcie_speed": speed, "server_pcie_width": width, "server_mps": mps}
    found = reached(roce(800, **slot))
    assert found.value / GBIT == pytest.approx(gbit, abs=0.5)
    assert found.limit == "pcie"
    assert found.at_full_mtu == found.value, "no MTU helps a slot"
    assert f"× {width} × 128/130 − 1 Gb/s" in found.terms.en
    assert reached(roce(10, **slot)).limit == "wire"


def test_the_slower_slot_of_both_counts_and_an_unknown_one_does_not() -> None:
    narrow: dict[str, Scalar] = {"client_pcie_speed": "32.0 GT/s PCIe", "client_pcie_width": 8}
    wide: dict[str, Scalar] = {"server_pcie_speed": "32.0 GT/s PCIe", "server_pcie_width": 16}
    assert reached(roce(**narrow, **wide)).value == reached(roce(**narrow)).value < reached(roce(**wide)).value
    for unknown in ({"client_pcie_speed": "Unknown", "client_pcie_width": 8}, {"client_pcie_speed": "", **wide}):
        assert reached(roce(**unknown)).limit == "wire"


@pytest.mark.parametrize(
    "parameters",
    [
        roce(0),
        roce(2.5),  # the kernel's word for an Ethernet of unknown speed
        roce(10, client_nic="hns_0"),
        roce(10, server_nic="rxe1"),
        roce(link_speed="400"),
        roce(link_speed=True),
        roce(link_speed=math.nan),
        roce(mtu=0),
        roce(size=0),
        roce(roce=""),
        roce(link_layer=""),
        roce(verb="atomic"),
        infiniband(40),  # QDR: 32 Gb/s of data; or FDR10: 38.8
        infiniband(56),
        {},
    ],
)
def test_what_is_not_known_is_not_guessed(parameters: dict[str, Scalar]) -> None:
    assert expected_of(parameters) is None


def test_an_hns_port_whose_speed_is_known_and_a_slow_nic_of_another_make() -> None:
    assert reached(roce(200, client_nic="hns_0")).value > 190 * GBIT
    assert reached(roce(10, client_nic="mlx4_0")).value > 9 * GBIT


def test_tcp_over_ethernet() -> None:
    """1448 of 1538 bytes with an MTU of 1500 and time stamps; 1428 over IPv6."""
    given: dict[str, Scalar] = {"transport": "tcp", "link_speed": 10 * GBIT, "mtu": 1500, "client_address": "10.0.0.1"}
    found = reached(given)
    assert found.value / GBIT == pytest.approx(10 * 1448 / 1538)
    assert found.at_full_mtu / GBIT == pytest.approx(10 * (JUMBO - 52) / (JUMBO + 38))
    assert reached({**given, "client_address": "2001:db8::1"}).value / GBIT == pytest.approx(10 * 1428 / 1538)
    for unknown in ({"mtu": 0}, {"mtu": 52}, {"link_speed": 0.0}, {"client_address": ""}):
        assert expected_of({**given, **unknown}) is None


def test_an_mtu_of_1024_is_the_cause_only_where_it_explains_the_figure() -> None:
    found = reached(roce(mtu=1024))
    cause = cause_of(found, 368 * GBIT)
    assert cause is not None
    assert "MTU of 1024" in cause.en
    assert "MTU 仅为 1024" in cause.zh
    assert "370.3 Gb/s" in cause.en
    assert "392.1 Gb/s" in cause.en
    assert cause_of(found, 340 * GBIT) is None, "slow for that MTU as well"
    assert cause_of(reached(roce()), 300 * GBIT) is None, "the MTU is as large as can be"
    assert cause_of(found, 368 * GBIT, Thresholds(0.5, 0.6)) is None, "nothing is missing"


def test_thresholds() -> None:
    assert Thresholds() == (FAIL_BELOW, WARN_BELOW) == (0.90, 0.95)


PARAMETERS = st.fixed_dictionaries(
    {
        "verb": st.sampled_from(("write", "read", "send")),
        "bytes": st.integers(1, 1 << 30),
        "direction": st.sampled_from(("one-way", "two-way")),
        "mtu": st.sampled_from((256, 512, 1024, 2048, 4096)),
        "link_layer": st.sampled_from(("Ethernet", "InfiniBand")),
        "roce": st.sampled_from(("v1", "v2")),
        "gid": st.sampled_from((V4, V6, 3)),
        "link_speed": st.sampled_from((25, 100, 200, 400, 800)).map(lambda gbit: gbit * GBIT),
        "client_pcie_speed": st.sampled_from(("", "16.0 GT/s PCIe", "32.0 GT/s PCIe", "64.0 GT/s PCIe")),
        "client_pcie_width": st.sampled_from((0, 8, 16)),
        "client_mps": st.sampled_from((0, 256, 512)),
    }
)


@given(PARAMETERS)
def test_never_above_the_line_rate(parameters: dict[str, Scalar]) -> None:
    found = reached(parameters)
    rate = parameters["link_speed"]
    assert isinstance(rate, float)
    assert 0 < found.value <= found.at_full_mtu < rate


@given(PARAMETERS, st.integers(2, 64))
def test_larger_messages_and_larger_mtus_never_cost(parameters: dict[str, Scalar], times: int) -> None:
    """Whole multiples: one byte more than fits into a packet costs the headers of another."""
    size, mtu = parameters["bytes"], parameters["mtu"]
    assert isinstance(size, int)
    assert isinstance(mtu, int)
    value = reached(parameters).value * (1 - 1e-12)
    assert reached({**parameters, "bytes": size * times}).value >= value
    assert reached({**parameters, "mtu": min(2 * mtu, FULL_MTU)}).value >= value
