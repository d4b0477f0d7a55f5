"""Transfers over several paths as the probe plans and measures them, over the loopback interface."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from cwai_bench.errors import DeviceError, UsageError
from cwai_bench.model import Measurement, PathFault, Transfer
from cwai_bench.native import POLICIES
from cwai_bench.path_bound import PATH, TRANSFER
from cwai_bench.probes import World, lanes
from cwai_bench.probes.lanes import rails
from cwai_bench.probes.multipath import steps
from cwai_bench.probes.nic import Place
from cwai_bench.probes.transfer import folded, trouble
from tests.unit import ranks
from tests.unit.ranks import planned

TWO = World(2, ("n1", "n2"), True)
ADDRESSES = ("127.0.0.1", "127.0.0.2")


def told(nodes: tuple[str, ...], scenario: str = "as_is", **options: Any) -> list[Any]:
    world = World(len(nodes), tuple(dict.fromkeys(nodes)), True)
    given = {"interfaces": ("lo",), "repeat": 1, "size": 4 << 20, "scenarios": (scenario,), **options}
    (spec,), _ = planned(f"multipath.{scenario}", world, **given)
    return list(ranks.told(f"multipath.{scenario}", nodes, spec, 60.0))


def measurements(emitted: list[Any], metric: str) -> list[Measurement]:
    return [m for m in emitted if isinstance(m, Measurement) and m.metric == metric]


# ---------------------------------------------------------------------------------------------- plan


def test_only_what_was_asked_for_is_rehearsed() -> None:
    specs, left = planned("multipath.as_is", TWO)
    assert (len(specs), left) == (1, [])
    for scenario in ("cut", "degraded", "flapping"):
        specs, left = planned(f"multipath.{scenario}", TWO)
        assert specs == []
        assert f"--scenario {scenario}" in left[0].reason.en
    specs, _ = planned("multipath.cut", TWO, scenarios=("as_is", "cut"))
    assert specs[0].parameters["scenario"] == "cut"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"policies": ("fair",)}, "--policy"),
        ({"policies": ("equal",)}, "pull"),
        ({"scenarios": ("burnt",)}, "--scenario"),
        ({"connections": 129}, "--connections"),
        ({"size": 2 << 30}, "--size"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name(options: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        planned("multipath.as_is", TWO, **options)


def test_the_order_is_random_and_that_of_its_seed() -> None:
    one = list(steps(7, 0, 2, 3, POLICIES))
    assert one == list(steps(7, 0, 2, 3, POLICIES))
    assert one != list(steps(8, 0, 2, 3, POLICIES))
    counted = Counter((step.repetition, step.policy) for step in one)
    assert all(counted[repetition, policy] == 1 for repetition in (1, 2) for policy in POLICIES)
    assert all(counted[repetition, "alone"] == 3 for repetition in (-1, 0, 1, 2))
    assert [step.repetition for step in one] == sorted(step.repetition for step in one)


def test_faults_are_planted_on_the_first_path() -> None:
    assert trouble("as_is", 2.0, 1e9, 60.0) == ()
    (cut,) = trouble("cut", 2.0, 1e9, 60.0)
    assert (cut.path, cut.kind, cut.begin) == (0, "cut", 0.5)
    (slow,) = trouble("degraded", 2.0, 8e8, 60.0)
    assert (slow.kind, slow.rate) == ("slow", 1e8)
    flaps = trouble("flapping", 2.0, 1e9, 3.0)
    assert [(f.begin, f.end) for f in flaps] == [(0.5, 1.0), (1.5, 2.0), (2.5, 3.0)]


def test_rails_are_networks_then_names() -> None:
    def place(nic: str, address: str) -> Place:
        return Place(nic, address, 24, 0.0)

    mine = [place("a0", "10.0.0.1"), place("a1", "10.0.1.1"), place("a2", "10.9.0.1")]
    theirs = [place("b1", "10.0.1.2"), place("b0", "10.0.0.2"), place("b2", "10.8.0.2")]
    assert rails(mine, theirs) == [(0, 1), (1, 0), (2, 2)]
    same = [place("eth0", "10.0.0.1"), place("eth1", "10.0.0.2")]
    other = [place("eth1", "10.0.0.4"), place("eth0", "10.0.0.3")]
    assert rails(same, other) == [(0, 1), (1, 0)]
    assert rails(mine[:1], [Place("b0", "fd00::2", 64, 0.0)]) == []


def test_timelines_are_folded_and_lose_nothing() -> None:
    step, lines = folded(0.01, [[1] * 1000, [2] * 500])
    assert step == pytest.approx(0.05)
    assert [len(line) for line in lines] == [200, 200]
    assert [sum(line) for line in lines] == [1000, 1000]
    assert folded(0.01, [[], []]) == (0.01, [[], []])


# ------------------------------------------------------------------------------------------- measure


def test_every_policy_between_two_nodes() -> None:
    emitted = told(("n1", "n2"), connections=2, from_ends=("n1",), to_ends=("n2",))
    alone, together = measurements(emitted, PATH), measurements(emitted, TRANSFER)
    assert {m.subject.id for m in alone} == {"n1/lo→n2/lo"}
    assert {m.parameters["policy"] for m in together} == set(POLICIES)
    assert all(m.status == "ok" and m.correct and m.samples[0] > 0 for m in (*alone, *together))
    assert {m.subject.id for m in together} == {"n1→n2"}
    (transfer,) = (t for t in emitted if isinstance(t, Transfer))
    assert (transfer.policy, transfer.bytes) == ("pull", 4 << 20)
    assert [path.connections for path in transfer.paths] == [2]
    assert sum(sum(path.timeline) for path in transfer.paths) == 4 << 20


def test_alone_on_one_machine() -> None:
    emitted = told(("n1",), connections=3)
    together = measurements(emitted, TRANSFER)
    assert {m.subject.id for m in together} == {"n1"}
    assert all(m.correct and m.parameters["within_node"] for m in together)
    assert {m.subject.id for m in measurements(emitted, PATH)} == {"n1/lo"}


def test_two_ranks_of_one_node_are_its_two_ends() -> None:
    emitted = told(("n1", "n1"))
    assert all(m.correct for m in measurements(emitted, TRANSFER))
    assert {m.rank for m in measurements(emitted, TRANSFER)} == {0}


def test_a_rehearsal_needs_a_second_path() -> None:
    (m,) = told(("n1",), "cut")
    assert (m.status, m.reason_code) == ("skip", "unsupported")


@pytest.fixture
def two_nics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both nodes have two NICs, whose addresses are of the loopback interface."""
    own = [Place(f"x{i}", address, 8, 0.0) for i, address in enumerate(ADDRESSES)]
    monkeypatch.setattr(lanes, "_places", lambda _given, alone: own)


@pytest.mark.usefixtures("two_nics")
def test_a_path_that_is_cut_is_survived_traced_and_named() -> None:
    # How fast a busy machine is changes from one transfer to the next: of several, one is cut in the midst.
    given = {"from_ends": ("n1",), "to_ends": ("n2",), "policies": ("pull",), "size": 64 << 20, "repeat": 4}
    emitted = told(("n1", "n2"), "cut", **given)
    transfers = measurements(emitted, TRANSFER)
    assert {(m.status, m.correct) for m in transfers} == {("ok", True)}
    hits = {m.parameters["planted"] for m in transfers}
    assert hits <= {"n1/x0→n2/x0", "n1/x1→n2/x1"}
    (transfer,) = (t for t in emitted if isinstance(t, Transfer))
    assert {(f.path, f.kind) for f in transfer.planted} <= {(0, "cut")}
    assert "→".join((transfer.paths[0].source, transfer.paths[0].target)) in hits
    faults = [f for f in emitted if isinstance(f, PathFault)]
    assert faults
    for fault in faults:
        assert fault.rehearsed
        assert fault.finding is not None
        assert (fault.finding.kind, "→".join(fault.finding.ends)) == ("path", fault.paths[0])
        assert fault.paths[0] in hits


@pytest.mark.usefixtures("two_nics")
@pytest.mark.parametrize("scenario", ["degraded", "flapping"])
def test_a_path_that_is_slow_or_comes_and_goes_costs_no_byte(scenario: str) -> None:
    emitted = told(("n1", "n2"), scenario, from_ends=("n1",), to_ends=("n2",), policies=("pull", "equal"))
    assert {(m.status, m.correct) for m in measurements(emitted, TRANSFER)} == {("ok", True)}


def test_a_nic_that_is_not_there_leaves_the_pair_unknown() -> None:
    found = measurements(told(("n1", "n2"), interfaces=("nosuch0",)), TRANSFER)
    assert [m.subject.id for m in found] == ["n1→n2", "n2→n1"]
    for m in found:
        assert (m.status, m.reason_code) == ("error", "absent")
        assert m.reason is not None
        assert "nosuch0" in m.reason.en


def test_a_nic_that_is_named_and_not_up_is_refused() -> None:
    with pytest.raises(DeviceError, match="n1/x has no address that is up"):
        told(("n1", "n2"), from_ends=("n1/x",), to_ends=("n2",))
