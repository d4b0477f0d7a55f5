"""Naming what made a path fail: by planted faults, by hand, and what must hold whatever was probed."""

from __future__ import annotations

import time
from itertools import combinations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwai_bench.errors import UsageError
from cwai_bench.model import Action, PathFinding, PathProbe, PathStatus
from cwai_bench.path_fault import LIMIT, PortEvent, localise, plan, status_of
from tests.unit.planted_paths import Element, Fabric, Fault, said, simulate


def test_planted_faults_are_named_and_nobody_else() -> None:
    """What ``make bench`` does with 200 seeds, and says how near it comes to 95 %; here are few, mostly small."""
    for faults in (1, 2):
        found = simulate(range(1, 20, 2), faults)
        assert found.could >= 5 * faults
        assert found.right >= 0.8 * found.could, "\n".join(found.wrong)
        assert not found.blamed, "\n".join(found.wrong)


@pytest.mark.parametrize(("seed", "faults"), [(50, 1), (173, 2)], ids=["a switch of four nodes", "two lossy NICs"])
def test_what_looks_like_one_more_fault_accuses_nobody(seed: int, faults: int) -> None:
    """A node behind a dead switch is as dead as one beside it; two lossy NICs lose most between one another."""
    found = simulate([seed], faults)
    assert not found.blamed, "\n".join(found.wrong)
    assert found.right == found.could


def test_a_fabric_that_is_well_names_nobody_and_asks_for_little() -> None:
    for seed in range(6):
        fabric = Fabric(seed, 8, 2, 4, 4, rails=False)
        probes = [fabric.probe(a, b, e) for a, b in fabric.pairs for e in range(8)]
        for _ in range(8):
            asked = plan(fabric.ends, probes)
            probes += fabric.probes(asked)
            if not asked:
                break
        assert not asked
        assert not localise(probes), seed


# ---------------------------------------------------------------------------------------------- by hand


def tried(*pairs: tuple[str, str], status: PathStatus = "ok", entropies: int = 8, code: int = 0) -> list[PathProbe]:
    figure = None if status == "failed" else 1e9
    return [PathProbe(a, b, e, status, figure, code) for a, b in pairs for e in range(entropies)]


def only(findings: list[PathFinding]) -> PathFinding:
    (finding,) = findings
    return finding


A, B, C, D = "a/0", "b/0", "c/0", "d/0"
OTHERS = [("a/1", "b/1"), ("a/1", "c/1"), ("b/1", "c/1")]


def test_a_third_node_tells_which_nic_it_is() -> None:
    died = tried((A, B), status="failed")
    assert only(localise(died)).kind == "ambiguous"
    finding = only(localise(died + tried((A, C), status="failed") + tried((B, C), *OTHERS)))
    assert (finding.kind, finding.ends, finding.nodes, finding.bad, finding.tried) == ("nic", [A], ["a"], 16, 16)
    assert (finding.share, finding.some_entropies) == (1.0, False)
    assert finding.confidence >= 0.98
    assert {(p.source, p.target, p.failed) for p in finding.proof} == {(A, B, 8), (A, C, 8)}
    assert (B, C) in {(p.source, p.target) for p in finding.fine}
    assert (finding.drain.action, finding.drain.nics, finding.drain.nodes) == (Action.ISOLATE, [A], [])


def test_between_two_nodes_only_a_port_can_tell() -> None:
    died = tried((A, B), status="failed", code=12) + tried(("a/1", "b/1"))
    finding = only(localise(died))
    assert (finding.kind, finding.drain.action, finding.codes) == ("ambiguous", Action.MONITOR, [12])
    assert {(c.kind, *c.ends) for c in finding.candidates} >= {("nic", A), ("nic", B)}
    told = only(localise(died, [PortEvent(B, "port_down")]))
    assert (told.kind, told.ends, told.signs, told.drain.nics) == ("nic", [B], ["b/0 port_down"], [B])
    both = only(localise(died, [PortEvent(A, "port_down"), PortEvent(B, "port_down")]))
    assert both.kind == "ambiguous"
    counted = only(localise(died, counters={A: {"symbol_error": 7, "port_xmit_wait": 9}, B: {"symbol_error": 0}}))
    assert (counted.kind, counted.ends, counted.signs) == ("nic", [A], ["a/0 symbol_error"])
    assert only(localise(died, counters={A: {"port_xmit_wait": 9}})).kind == "ambiguous", "congestion is no sign"


def test_bad_with_all_nics_of_the_only_other_node_is_still_ambiguous() -> None:
    finding = only(localise(tried((A, B), (A, "b/1"), status="failed") + tried(("a/1", B), ("a/1", "b/1"))))
    assert finding.kind == "ambiguous"


def test_a_node_and_its_only_nic_are_alike_and_drained_alike() -> None:
    finding = only(localise(tried((A, B), (A, C), (A, D), status="failed") + tried((B, C), (B, D), (C, D))))
    assert finding.kind == "ambiguous"
    assert {c.kind for c in finding.candidates} == {"nic", "node"}
    assert (finding.drain.action, finding.drain.nodes) == (Action.ISOLATE, ["a"])


def test_all_nics_of_a_node_are_the_node() -> None:
    bad = [(f"a/{k}", f"{other}/{k}") for k in range(3) for other in "bcd"]
    fine = [(f"{one}/{k}", f"{other}/{k}") for k in range(3) for one, other in combinations("bcd", 2)]
    finding = only(localise(tried(*bad, status="failed") + tried(*fine)))
    assert (finding.kind, finding.nodes, finding.drain.nodes) == ("node", ["a"], ["a"])
    assert finding.ends == ["a/0", "a/1", "a/2"]


def test_one_pair_is_a_path_when_both_ends_are_fine_with_others() -> None:
    fine = tried((A, C), (A, D), (B, C), (B, D), *OTHERS)
    assert only(localise(tried((A, B), status="failed") + fine)).kind == "ambiguous", "eight flows may be some of many"
    finding = only(localise(tried((A, B), status="failed", entropies=24) + fine))
    assert (finding.kind, finding.ends, finding.drain.action) == ("path", [A, B], Action.MONITOR)


def test_some_entropies_between_groups_are_the_fabric() -> None:
    """Every fourth flow between {a, b, c} and {d, e, f} is lost: a link between their switches."""
    ends = [f"{node}/0" for node in "abcdef"]
    probes = []
    for one, other in combinations(ends, 2):
        across = (one < "d") != (other < "d")
        for e in range(32):
            is_bad = across and (e + ord(one[0]) * 3 + ord(other[0])) % 4 == 0
            probes += 2 * [PathProbe(one, other, e, "failed" if is_bad else "ok")]
    finding = only(localise(probes))
    assert (finding.kind, finding.some_entropies, finding.drain) == ("fabric", True, finding.drain)
    assert finding.share == pytest.approx(0.25, abs=0.02)
    assert finding.drain.action is Action.MONITOR
    assert set(finding.ends) == set(ends)


def test_some_entropies_of_one_end_alone_may_be_the_others() -> None:
    ends = [f"{node}/0" for node in "abcdef"]
    probes = []
    for one, other in combinations(ends, 2):
        for e in range(32):
            is_bad = one == A and (e + ord(other[0])) % 4 == 0
            probes += 2 * [PathProbe(one, other, e, "failed" if is_bad else "ok")]
    finding = only(localise(probes))
    assert finding.kind == "ambiguous"
    assert {"nic", "fabric"} <= {c.kind for c in finding.candidates}
    assert finding.drain.action is Action.MONITOR


@pytest.mark.parametrize("code", [4, 9, 10])
def test_what_is_refused_is_configuration_and_no_fault_of_a_path(code: int) -> None:
    refused = tried((A, B), status="failed", code=code)
    finding = only(localise(refused + tried((A, C), (B, C))))
    assert (finding.kind, finding.ends, finding.codes) == ("configuration", [A, B], [code])
    assert (finding.drain.action, finding.bad) == (Action.FIX_CONFIG, 8)
    assert not plan([A, B, C], refused), "no probe mends a key"
    beside = localise(refused + tried(("a/1", B), ("a/1", C), status="failed") + tried((B, C), *OTHERS[2:]))
    assert {f.kind for f in beside} >= {"configuration", "ambiguous"} or {f.kind for f in beside} >= {
        "configuration",
        "nic",
    }


def test_a_flush_follows_from_what_came_before_and_tells_nothing() -> None:
    assert not localise(tried((A, B), status="failed", code=5) + tried((A, C), (B, C)))


def test_a_port_that_told_of_trouble_while_all_was_fine_is_told_as_seen() -> None:
    finding = only(localise(tried((A, B), (A, C), (B, C)), [PortEvent(A, "port_error")]))
    assert (finding.kind, finding.ends, finding.drain.action) == ("flake", [A], Action.MONITOR)


def test_nothing_bad_is_no_finding_and_no_plan() -> None:
    assert not localise([])
    assert not localise(tried((A, B)))
    assert not plan([A, B, C], [])
    assert not plan([A, B, C], tried((A, B)))


@pytest.mark.parametrize(("source", "target"), [("a", B), (A, "b"), (A, A)])
def test_a_probe_needs_two_ends(source: str, target: str) -> None:
    with pytest.raises(UsageError, match=f"{source!r} to {target!r}"):
        localise([PathProbe(source, target, 0, "ok")])


def test_a_figure_is_slow_below_its_usual() -> None:
    assert [status_of(figure, 100.0) for figure in (None, 84.0, 86.0, 120.0)] == ["failed", "slow", "ok", "ok"]


def test_a_finding_goes_through_json() -> None:
    findings = localise(tried((A, B), status="failed", code=12) + tried((A, C), (A, D)), [PortEvent(B, "port_down")])
    assert findings
    assert msgspec.json.decode(msgspec.json.encode(findings), type=list[PathFinding]) == findings


def test_a_plan_for_the_largest_group_is_bounded() -> None:
    """64 nodes of 8 NICs: a path died; what is asked stays within the bound, round after round, and names the NIC."""
    fabric = Fabric(7, 64, 8, 16, 8, rails=True)
    fabric.faults.append(Fault(Element("nic", ("node17/mlx5_3",)), "dead"))
    probes = fabric.transfer(fabric.faults[0])
    began = time.process_time()
    for _ in range(8):
        asked = plan(fabric.ends, probes)
        made = fabric.probes(asked)
        assert len(made) <= LIMIT
        assert len({(p.source, p.target, p.entropy) for p in made}) == sum(len(each.entropies) for each in asked)
        probes += made
        if not asked:
            break
    finding = only(localise(probes))
    assert (finding.kind, finding.ends) == ("nic", ["node17/mlx5_3"])
    assert len(probes) < 3 * LIMIT
    assert time.process_time() - began < 120


def test_a_smaller_bound_is_kept() -> None:
    fabric = Fabric(3, 8, 2, 8, 2, rails=False)
    fabric.faults.append(Fault(Element("nic", ("node1/mlx5_0",)), "dead"))
    probes = fabric.transfer(fabric.faults[0])
    assert 0 < sum(len(each.entropies) * each.repeats for each in plan(fabric.ends, probes, limit=20)) <= 20


# ------------------------------------------------------------------------------------- whatever is probed

NODES = "abcde"
PAIRS = list(combinations([f"{node}/{nic}" for node in NODES for nic in "01"], 2))
PAIRS = [(one, other) for one, other in PAIRS if one[0] != other[0]]
STATUS = st.sampled_from(["ok", "ok", "slow", "failed"])
PROBE = st.builds(
    lambda pair, entropy, status: PathProbe(pair[0], pair[1], entropy, status),
    st.sampled_from(PAIRS),
    st.integers(0, 3),
    STATUS,
)


def renamed(findings: list[PathFinding], names: dict[str, str]) -> set[tuple[object, ...]]:
    """Who is accused, and of how much."""
    accused = [f for f in findings if f.kind != "ambiguous"]
    return {(f.kind, frozenset(names[end] for end in f.ends), f.bad, f.tried, f.drain.action) for f in accused}


@settings(max_examples=60, deadline=None)
@given(st.lists(PROBE, max_size=80), st.permutations(list(NODES)), st.permutations(["0", "1"]), st.randoms())
def test_names_and_order_change_nothing(
    probes: list[PathProbe], nodes: list[str], nics: list[str], rng: object
) -> None:
    to_node, to_nic = dict(zip(NODES, nodes, strict=True)), dict(zip("01", nics, strict=True))
    ends = sorted({end for pair in PAIRS for end in pair})
    names = {end: f"{to_node[end[0]]}/{to_nic[end[2]]}" for end in ends}
    others = [msgspec.structs.replace(p, source=names[p.source], target=names[p.target]) for p in probes]
    rng.shuffle(others)  # type: ignore[attr-defined]
    same = {end: end for end in ends}
    assert renamed(localise(others), same) == renamed(localise(probes), names)


@settings(max_examples=60, deadline=None)
@given(st.lists(PROBE, max_size=60), st.lists(st.sampled_from(PAIRS), max_size=12))
def test_fine_probes_accuse_nobody_whom_they_meet(probes: list[PathProbe], fine: list[tuple[str, str]]) -> None:
    """More fine probes may clear one of several candidates and so decide for another; but whoever they meet is not
    accused for them: a part named only then is one that they do not touch, or was a candidate before."""
    before = localise(probes)
    known = said(before) | {
        (c.kind, () if c.kind == "fabric" else tuple(sorted(c.ends))) for f in before for c in f.candidates
    }
    after = localise(probes + tried(*dict.fromkeys(fine)))
    met = {end for pair in fine for end in pair}
    for kind, ends in said(after) - known:
        assert not met.intersection(ends) or kind == "path", (kind, ends)
    if not any(p.status != "ok" for p in probes):
        assert not after
