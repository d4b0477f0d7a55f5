"""What collectives should reach: computed against published figures, and what must hold whatever the terms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwai_bench.checks.topology import topology_of
from cwai_bench.collective_bound import (
    ABOVE,
    FAIL_BELOW,
    OPERATIONS,
    REFERENCES,
    SMALLEST_JUDGED,
    WARN_BELOW,
    Bound,
    Reference,
    Topology,
    bus_factor,
    due,
    expected_of,
    references,
)
from cwai_bench.model import Scalar
from tests.unit.conftest import Planted

GB = 1e9
LARGE = 16 << 30
"""Bytes: latency does not count."""


def board(card: str, links: int, cards: int = 8, *, nodes: int = 1, nics: int = 8, gbit: float = 400) -> Topology:
    return Topology(nodes, cards, card, 8, links, 32e9 * 16, 2, nics, gbit / 8 * GB)


SYSTEMS = {
    "A100": board("NVIDIA A100-SXM4-80GB", 12, gbit=200),
    "A800": board("NVIDIA A800-SXM4-80GB", 8, gbit=200),
    "H100": board("NVIDIA H100 80GB HBM3", 18),
    "H800": board("NVIDIA H800", 8),
    "H200": board("NVIDIA H200", 18),
    "B200": board("NVIDIA B200", 18),
    "910B": Topology(1, 8, "Ascend 910B3", 8, None, 16e9 * 16, 4, 8, 25 * GB),
    "A100 PCIe": Topology(1, 4, "NVIDIA A100 80GB PCIe", 4, 12, 16e9 * 16, 2),
}


def of(reference: Reference) -> Topology:
    """The system of a reference; NICs that it does not tell are those of Azure's and DeepSeek's nodes."""
    known = SYSTEMS[reference.system]
    rails = (reference.nics, reference.nic_rate) if reference.nics else (known.nics, known.nic_rate)
    return replace(known, cards=reference.cards, nodes=reference.nodes, nics=rails[0], nic_rate=rails[1])


def reached(topology: Topology, operation: str = "all_reduce", size: int = LARGE, **more: str) -> Bound:
    found = expected_of(topology, operation, size, **more)
    assert found is not None
    return found


def value(topology: Topology, operation: str = "all_reduce", size: int = LARGE, **more: str) -> float:
    found = reached(topology, operation, size, **more)
    assert found.value is not None
    return found.value


def label(reference: Reference) -> str:
    return f"{reference.nodes}x{reference.cards} {reference.system} {reference.algorithm} {reference.bus / GB:g}"


@pytest.mark.parametrize("reference", [r for r in REFERENCES if not r.gate and r.algorithm], ids=label)
def test_with_the_algorithm_known_the_bound_is_what_was_published(reference: Reference) -> None:
    computed = value(of(reference), reference.operation, algorithm=reference.algorithm)
    assert 0.90 < reference.bus / computed < 1.03


# stas00/ml-engineering, network/README.md: GB/s of bus bandwidth of all_reduce, 32 KiB to 16 GiB, each twice the last.
TABLES = {
    "8 A100": (
        SYSTEMS["A100"],
        "1.31 2.45 4.43 7.47 11.41 18.0 36.18 72.33 109.93 106.16 138.49 171.54 176.92 194.07 "
        "222.72 229.04 231.41 233.88 234.61 234.89",
    ),
    "8 H200": (
        SYSTEMS["H200"],
        "1.44 2.93 5.73 11.74 23.94 39.93 64.53 107.16 155.53 219.89 275.84 346.51 401.93 436.15 "
        "450.29 463.58 469.17 473.10 477.45 482.26",
    ),
    "8 B200": (
        SYSTEMS["B200"],
        "1.20 2.17 4.86 9.54 18.71 36.06 63.09 76.48 126.49 254.96 325.97 400.6 568.38 646.11 "
        "688.99 723.34 734.97 740.64 839.07 845.67",
    ),
    "4 x 8 B200": (
        replace(SYSTEMS["B200"], nodes=4),
        "0.01 0.04 0.45 1.33 2.84 5.37 10.38 18.9 35.12 64.43 91.19 156.74 197.94 229.09 "
        "326.9 361.99 372.42 377.34 380.39 381.8",
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_sizes_that_are_judged_are_those_of_which_published_tables_keep_what_is_due(name: str) -> None:
    topology, figures = TABLES[name][0], [float(word) for word in TABLES[name][1].split()]
    shares = {32 << 10 << i: bus * GB / value(topology, size=32 << 10 << i) for i, bus in enumerate(figures)}
    assert list(shares)[-1] == LARGE
    assert min(share for size, share in shares.items() if size >= SMALLEST_JUDGED) > WARN_BELOW
    if name in ("8 H200", "8 B200"):
        known = [bus * GB / value(topology, size=32 << 10 << i, algorithm="NVLS") for i, bus in enumerate(figures)]
        assert min(share for share, size in zip(known, shares, strict=True) if size >= SMALLEST_JUDGED) > WARN_BELOW
        assert known[14] < WARN_BELOW or name == "8 H200", "512 MiB cannot be judged"
    assert all(bus * GB < (reached(topology, size=32 << 10 << i).ceiling or 0) for i, bus in enumerate(figures))


def test_smaller_sizes_cannot_be_judged() -> None:
    shares = [
        bus * GB / value(topology, size=32 << 10 << i)
        for topology, figures in TABLES.values()
        for i, bus in enumerate(map(float, figures.split()))
        if 1 << 20 <= 32 << 10 << i < SMALLEST_JUDGED
    ]
    assert min(shares) < FAIL_BELOW, "or else let them be judged as well"
    assert min(shares) > 0.6


# An algorithm that was forced though it is slower is meant to be noticed.
@pytest.mark.parametrize("reference", [r for r in REFERENCES if not r.gate and "forced" not in r.source], ids=label)
def test_nothing_published_would_be_accused_or_disbelieved(reference: Reference) -> None:
    found = reached(of(reference), reference.operation)
    assert found.ceiling is not None
    assert reference.bus < found.ceiling
    if found.value is not None:
        assert reference.bus > WARN_BELOW * found.value


@pytest.mark.parametrize("reference", [r for r in REFERENCES if r.gate], ids=label)
def test_our_thresholds_are_no_stricter_than_public_gates_are(reference: Reference) -> None:
    """Each gate demands at least the share below which we fail, so what fails here fails there; one is laxer than our
    warning."""
    share = reference.bus / value(of(reference), reference.operation, algorithm=reference.algorithm)
    assert share > FAIL_BELOW
    assert share > WARN_BELOW or reference.bus == 185 * GB


@pytest.mark.parametrize(
    ("nodes", "algorithm", "gbytes"),
    [
        (1, "", 370.8),  # 18 × 20.6
        (1, "RING", 370.8),
        (1, "TREE", 0.92 * 7 / 8 * 370.8),
        (1, "NVLS", 0.85 * 2 * 7 / 9 * 370.8),
        (2, "", 370.8),  # 8 × 50 × 0.96 = 384 is more
        (2, "TREE", 0.92 * 15 / 16 * 370.8),
        (4, "TREE", 0.92 * 31 / 32 * 370.8),
        (4, "NVLS_TREE", 0.92 * 31 / 32 * 384),
        (2, "NVLS_TREE", 2 * 15 / 16 * 0.85 * 8 / 9 * 370.8),
        (4, "COLLNET_DIRECT", 370.8),
    ],
)
def test_all_reduce_of_h100_by_nodes_and_algorithm(nodes: int, algorithm: str, gbytes: float) -> None:
    found = value(replace(SYSTEMS["H100"], nodes=nodes), size=1 << 44, algorithm=algorithm)
    assert found / GB == pytest.approx(gbytes, rel=1e-3)


def test_a_network_that_is_slower_than_the_links_is_the_limit() -> None:
    found = reached(replace(SYSTEMS["H100"], nodes=4, nics=4))
    assert found.limit == "network"
    assert found.value is not None
    assert found.value / GB == pytest.approx(4 * 50 * 0.96, rel=0.01)
    assert reached(SYSTEMS["H100"]).limit == "links"


def test_more_nics_than_cards_are_no_demand() -> None:
    found = value(replace(SYSTEMS["H100"], cards=2, nodes=2, pcie=0.0), size=1 << 44)
    assert found / GB == pytest.approx(2 * 50 * 0.96, rel=1e-3)


def test_slots_that_are_slower_than_the_nics_are_the_limit() -> None:
    """400 Gb/s behind 16 lanes of 16 GT/s, of which NCCL reckons with 24 GB/s."""
    found = reached(replace(SYSTEMS["A800"], nodes=2, nic_rate=50 * GB, pcie=16e9 * 16), size=1 << 44)
    assert found.limit == "links", "8 × 20 GB/s of NVLink are less still"
    assert found.value is not None
    found = reached(replace(SYSTEMS["A100"], nodes=2, nic_rate=50 * GB, pcie=16e9 * 16), size=1 << 44)
    assert found.limit == "network"
    assert found.value == pytest.approx(8 * 24 * GB, rel=1e-3)
    assert "PCIe 8 × 24 GB/s = 192 GB/s" in found.words.en


def test_where_nvlink_reaches_other_nodes_nics_set_no_ceiling() -> None:
    found = reached(Topology(4, 4, "NVIDIA GB200", 4, 18, 64e9 * 16, 2, 4, 50 * GB))
    assert found.ceiling is None
    assert found.value is not None


def test_small_sizes_have_a_bound_of_their_own() -> None:
    """8.4 us + 14 × 3.4 us of a ring over 8 cards, beside which 1 MiB takes 5 us."""
    h100 = SYSTEMS["H100"]
    found = reached(h100, size=1 << 20)
    assert found.limit == "latency"
    latency = (8.4 + 14 * 3.4) * 1e-6
    assert found.value == pytest.approx((1 << 20) * 1.75 / (latency + (1 << 20) * 1.75 / 370.8e9))
    assert "latency 8.4 + 14 × 3.4 = 56 us" in found.words.en
    assert "时延 8.4 + 14 × 3.4 = 56 us" in found.words.zh
    assert value(h100, size=8) < value(h100, size=1 << 20) < value(h100, size=1 << 30)
    assert value(h100, size=1 << 20, algorithm="RING", protocol="LL128") != value(h100, size=1 << 20)


def test_the_terms_are_said_in_both_languages() -> None:
    found = reached(replace(SYSTEMS["H100"], nodes=2))
    assert "NVLink 18 × 20.6 GB/s = 370.8 GB/s" in found.words.en
    assert "NICs 8 × 50 GB/s × 0.96 = 384 GB/s" in found.words.en
    assert "ring over 2 nodes: 370.8 GB/s" in found.words.en
    assert "网卡 8 × 50 GB/s × 0.96 = 384 GB/s" in found.words.zh
    assert "ring，2 节点：370.8 GB/s" in found.words.zh


def test_boards_without_a_switch_use_the_links_between_the_cards_that_take_part() -> None:
    four = replace(SYSTEMS["A100"], installed=4, cards=4)
    assert value(four) / GB == pytest.approx(240, rel=0.01)
    assert value(replace(four, cards=2)) / GB == pytest.approx(80, rel=0.01)
    assert expected_of(replace(four, installed=0), "all_reduce", LARGE) is None, "how many share them is not known"


def test_ranks_that_share_a_card_go_over_no_link() -> None:
    one = replace(SYSTEMS["H100"], installed=1, cards=2)
    assert expected_of(one, "all_reduce", LARGE) is None
    between = reached(replace(one, nodes=2))
    assert (between.value, between.ceiling is not None) == (None, True), "what goes between nodes is another matter"


def test_cards_without_links_meet_over_pcie_and_demand_little_of_it() -> None:
    l40s = Topology(1, 4, "NVIDIA L40S", 4, 0, 16e9 * 16, 1)
    assert value(l40s) / GB == pytest.approx(20, rel=0.01)
    assert value(replace(l40s, sockets=2)) / GB == pytest.approx(6, rel=0.01)
    assert value(replace(l40s, sockets=0)) / GB == pytest.approx(6, rel=0.01), "not known is not one"
    assert value(SYSTEMS["A100 PCIe"]) / GB == pytest.approx(6, rel=0.01), (
        "not every card meets every other by a bridge"
    )


@pytest.mark.parametrize(
    ("topology", "operation", "more"),
    [
        (replace(SYSTEMS["H100"], links=None), "all_reduce", {}),
        (replace(SYSTEMS["H100"], card=""), "all_reduce", {}),
        (replace(SYSTEMS["H100"], card="NVIDIA X9000"), "all_reduce", {}),
        (replace(SYSTEMS["H100"], nodes=2, nics=0), "all_reduce", {}),
        (replace(SYSTEMS["H100"], nodes=2, nic_rate=0.0), "all_reduce", {}),
        (SYSTEMS["H100"], "alltoall", {}),
        (SYSTEMS["H100"], "alltoallv", {}),
        (SYSTEMS["H100"], "all_reduce", {"library": "mpi"}),
        (SYSTEMS["910B"], "all_reduce", {"library": "hccl"}),
        (replace(SYSTEMS["H100"], cards=1), "all_reduce", {}),
    ],
)
def test_what_is_not_known_is_not_demanded(topology: Topology, operation: str, more: dict[str, str]) -> None:
    found = expected_of(topology, operation, LARGE, **more)
    assert found is None or found.value is None


def test_what_is_not_demanded_has_a_ceiling_all_the_same() -> None:
    npu = reached(SYSTEMS["910B"], library="hccl")
    assert npu.ceiling == pytest.approx(7 * 28 * GB)
    assert "HCCS 7 × 28 GB/s" in npu.words.en
    hosts = reached(Topology(4, 2, nics=1, nic_rate=12.5 * GB), library="mpi")
    assert hosts.value is None
    assert hosts.ceiling == pytest.approx(2 * 7 / 8 * 12.5 * GB)


def test_ranks_that_ran_alone_and_more_than_the_wire_carries_are_above_the_ceiling() -> None:
    two = reached(replace(SYSTEMS["H100"], nodes=2, nics=1))
    assert two.ceiling is not None
    assert two.ceiling * ABOVE < 480 * GB, "the figure of one node cannot be that of two over one NIC"


def test_a_measurement_is_held_against_the_topology_that_it_was_made_on() -> None:
    told: dict[str, Scalar] = {"operation": "all_reduce", "bytes": LARGE, "ranks": 8}
    h100 = SYSTEMS["H100"]
    found = due("nccl.all_reduce.time", told, h100)
    assert found == reached(h100)
    assert due("nccl.all_reduce.time", {**told, "algorithm": "NVLS"}, h100) == reached(h100, algorithm="NVLS")
    others: list[dict[str, Scalar]] = [{"ranks": 16}, {"bytes": 0}, {"bytes": "8"}, {"operation": "scan"}]
    for other in others:
        assert due("nccl.all_reduce.time", {**told, **other}, h100) is None
    assert due("tcp.bandwidth", told, h100) is None


def test_references_are_found_by_card_cards_nodes_and_network() -> None:
    assert [r.bus / GB for r in references(SYSTEMS["B200"], "all_reduce")] == [845.7, 682.2]
    assert [r.bus / GB for r in references(replace(SYSTEMS["B200"], nodes=4), "all_reduce")] == [381.8]
    assert references(replace(SYSTEMS["B200"], nodes=4, nics=4), "all_reduce") == []
    assert references(SYSTEMS["B200"], "all_gather") == []
    assert [r.bus / GB for r in references(SYSTEMS["H200"], "reduce_scatter")] == [362.9]
    assert [r.gate for r in references(SYSTEMS["H100"], "all_reduce")].count(True) == 2
    assert [r.bus / GB for r in references(SYSTEMS["910B"], "all_reduce")] == [126]
    assert all(references(of(r), r.operation) for r in REFERENCES)


def test_bus_factors_are_those_of_nccl_tests() -> None:
    assert bus_factor("all_reduce", 8) == 1.75
    assert bus_factor("all_gather", 8) == bus_factor("alltoall", 8) == 0.875
    assert bus_factor("broadcast", 8) == bus_factor("sendrecv", 8) == 1


TOPOLOGIES = st.builds(
    Topology,
    nodes=st.integers(1, 512),
    cards=st.integers(1, 8),
    card=st.sampled_from([s.card for s in SYSTEMS.values()] + ["", "NVIDIA L40S"]),
    installed=st.sampled_from((0, 4, 8)),
    links=st.sampled_from((None, 0, 4, 8, 12, 18)),
    pcie=st.sampled_from((0.0, 16e9 * 16, 32e9 * 8, 64e9 * 16)),
    sockets=st.integers(0, 4),
    nics=st.integers(0, 10),
    nic_rate=st.sampled_from((0.0, 3.125e9, 25e9, 100e9)),
)
ALGORITHMS = st.sampled_from(
    ("", "RING", "TREE", "NVLS", "NVLS_TREE", "COLLNET_DIRECT", "COLLNET_CHAIN", "PAT", "SOMETHING")
)


@given(
    TOPOLOGIES,
    st.sampled_from(OPERATIONS),
    st.integers(1, 1 << 40),
    ALGORITHMS,
    st.sampled_from(("", "LL", "LL128", "SIMPLE")),
    st.sampled_from(("nccl", "hccl", "mpi")),
)
def test_what_is_due_is_never_more_than_what_can_be(
    topology: Topology, operation: str, size: int, algorithm: str, protocol: str, library: str
) -> None:
    found = expected_of(topology, operation, size, library=library, algorithm=algorithm, protocol=protocol)
    if found is None:
        return
    assert found.value is None or found.value > 0
    assert found.terms
    assert found.ceiling is None or found.ceiling > 0
    if found.value is not None:
        assert found.ceiling is None or found.value <= found.ceiling


@given(TOPOLOGIES, st.sampled_from(OPERATIONS), st.integers(1, 1 << 40), ALGORITHMS, st.sampled_from(("LL", "LL128")))
def test_to_know_less_never_demands_more(
    topology: Topology, operation: str, size: int, algorithm: str, protocol: str
) -> None:
    less = expected_of(replace(topology, sockets=0), operation, size, algorithm=algorithm, protocol=protocol)
    more = expected_of(topology, operation, size, algorithm=algorithm, protocol=protocol)
    if less is not None and less.value is not None:
        assert more is not None
        assert more.value is not None
        assert less.value <= more.value


@given(TOPOLOGIES, st.sampled_from(OPERATIONS), st.integers(1, 1 << 38), ALGORITHMS)
def test_larger_sizes_never_demand_less(topology: Topology, operation: str, size: int, algorithm: str) -> None:
    one, two = (expected_of(topology, operation, s, algorithm=algorithm) for s in (size, 2 * size))
    if one is not None and two is not None and one.value is not None and two.value is not None:
        assert one.value <= two.value


# ------------------------------------------------------------------------------------------------------- from facts


def of_node(root: Path, node: str, cards: int = 8) -> Topology | None:
    facts = Planted(root / node, node).facts()
    return topology_of([facts], {facts.node: cards})


@pytest.mark.parametrize(
    ("node", "cards", "topology"),
    [
        ("good", 8, Topology(1, 8, "NVIDIA H100 80GB HBM3", 8, 18, 32e9 * 16, 2, 8, 50 * GB)),
        ("b200", 8, Topology(1, 8, "NVIDIA B200", 8, 18, 32e9 * 16, 2, 8, 50 * GB)),
        ("l40s", 4, Topology(1, 4, "NVIDIA L40S", 4, 0, 16e9 * 16, 2, 2, 25 * GB)),
        ("a10_vm", 1, Topology(1, 1, "NVIDIA A10", 1, 0, 16e9 * 16, 0)),
        ("efa", 8, Topology(1, 8, "NVIDIA H100 80GB HBM3", 8, 18, 32e9 * 16, 2)),
        ("plain", 2, Topology(1, 2)),
    ],
)
def test_the_topology_of_recorded_nodes(tmp_path: Path, node: str, cards: int, topology: Topology) -> None:
    assert of_node(tmp_path, node, cards) == topology


def test_the_topology_of_npus(tmp_path: Path) -> None:
    found = of_node(tmp_path, "ascend_910b")
    assert found is not None
    assert (found.card, found.installed, found.links) == ("Ascend 910B3", 8, None)
    assert (found.nics, found.nic_rate) == (8, 25 * GB)
    assert reached(found, library="hccl").ceiling == pytest.approx(196 * GB)


def test_several_nodes_and_one_whose_facts_are_missing(tmp_path: Path) -> None:
    facts = Planted(tmp_path / "node").facts()
    found = topology_of([facts], {facts.node: 8})
    assert found is not None
    lost = topology_of([facts], {facts.node: 8, "node2": 8})
    assert lost == Topology(2, 8)
    assert topology_of([facts], {}) is None
    assert topology_of([facts], {facts.node: 8, "node2": 4}) is None


def test_a_card_or_a_nic_that_fell_behind_lowers_nothing(planted: Planted) -> None:
    well = topology_of([planted.facts()], {planted.facts().node: 8})
    told = msgspec.json.decode((planted.root / "calls/nvml.json").read_bytes())
    for link in told["cards"][3]["links"][:6]:
        link["up"] = False
    planted.write("calls/nvml.json", msgspec.json.encode(told).decode())
    told = msgspec.json.decode((planted.root / "calls/rdma.json").read_bytes())
    told["devices"][2]["ports"][0].update(state="DOWN", phys_state="Polling")
    planted.write("calls/rdma.json", msgspec.json.encode(told).decode())
    assert topology_of([planted.facts()], {planted.facts().node: 8}) == well
