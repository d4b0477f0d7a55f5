"""What is said of transfers over several paths: wrong data, paths that failed or are slow, and the sum of the paths."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cwai_bench.config import parse_criteria
from cwai_bench.judge.measured import probe_verdicts
from cwai_bench.model import (
    Action,
    Drain,
    Measurement,
    PathChange,
    PathFault,
    PathFinding,
    Plan,
    PlantedTrouble,
    RankEvent,
    Run,
    Scalar,
    Status,
    Subject,
    Transfer,
    TransferPath,
    Verdict,
)
from cwai_bench.path_bound import PATH, TRANSFER
from cwai_bench.probes import World
from cwai_bench.text import plain
from tests.unit.ranks import planned

LANE = "n1→n2"
PATHS = tuple(f"n1/e{i}→n2/e{i}" for i in range(4))


def figure(metric: str, subject: str, value: float | None, scenario: str = "as_is", **changes: Any) -> Measurement:
    given: dict[str, Scalar] = {
        "scenario": scenario,
        "lane": LANE,
        "within_node": False,
        "bytes": 1000,
        "repetition": 1,
    }
    given |= changes.pop("parameters", {})
    if value is None:
        changes = {"status": "error", "reason_code": "error", "reason": plain("no route to host"), **changes}
    return Measurement(
        metric=metric,
        unit="B/s",
        subject=Subject("link", subject),
        samples=[] if value is None else [value],
        parameters=given,
        started=0.0,
        duration=1.0,
        node="n1",
        rank=0,
        spec=f"multipath.{scenario}#0",
        **{"correct": None if value is None else True, **changes},
    )


def alone(*values: float | None, scenario: str = "as_is") -> list[Measurement]:
    return [
        figure(PATH, path, value, scenario, parameters={"policy": "alone"})
        for path, value in zip(PATHS, values, strict=False)
    ]


def ours(value: float | None, scenario: str = "as_is", **changes: Any) -> Measurement:
    more = changes.pop("parameters", {})
    return figure(TRANSFER, LANE, value, scenario, parameters={"policy": "pull", **more}, **changes)


def judged(
    *ms: Measurement,
    scenario: str = "as_is",
    transfers: tuple[Transfer, ...] = (),
    faults: tuple[PathFault, ...] = (),
    demanded: str = "",
    ended: bool = True,
) -> dict[str, Verdict]:
    (spec,), _ = planned(f"multipath.{scenario}", World(2, ("n1", "n2"), True), scenarios=(scenario,))
    events = [RankEvent(0, "n1", 0.0, "item_begin", spec.id)] + [RankEvent(0, "n1", 1.0, "item_end", spec.id)] * ended
    run = Run(
        "r", "multipath", [], "1", 0.0, 1.0, 0, "complete", 2, Plan([], [spec], [], 1.0), {}, {}, [], [], list(ms),
        events, [], list(transfers), list(faults),
    )  # fmt: skip
    criteria = None
    if demanded:
        criteria = parse_criteria(f"[criteria]\n{demanded}\n", "c.toml", {spec.info.id: ""}, {spec.info.id})
    found = probe_verdicts(run, spec, criteria)
    assert len({v.subject for v in found}) == len(found), "two verdicts on one subject"
    assert all(v.detail is None or (v.detail.en and v.detail.zh) for v in found)
    return {v.subject.id: v for v in found}


def transfer(
    *changes: PathChange, scenario: str = "as_is", planted: bool = False, connections: int = 1, **more: Any
) -> Transfer:
    gone = {change.path for change in changes if change.state == "failed"}
    paths = [
        TransferPath(
            f"n1/e{k}",
            f"n2/e{k}",
            connections,
            100,
            0,
            0,
            k in gone,
            "failed" if k in gone else "healthy",
            True,
            [50, 50],
        )
        for k in range(3)
    ]
    hit = [PlantedTrouble(0, "cut", 0.25, 1e6)] if planted else []
    made = Transfer(
        f"multipath.{scenario}#0", "n1", "n2", scenario, "pull", 1, 300, 0.0, 1.0, 300, 0.5, paths, list(changes), hit
    )
    return msgspec.structs.replace(made, **more)


# ------------------------------------------------------------------------------------- the sum of paths


@pytest.mark.parametrize(("value", "status"), [(291.0, Status.PASS), (285.0, Status.PASS), (280.0, Status.WARN)])
def test_ours_is_held_against_the_sum_of_the_paths(value: float, status: Status) -> None:
    found = judged(*alone(100.0, 100.0, 100.0), ours(value))
    assert set(found) == {LANE}
    one = found[LANE]
    assert one.status is status
    assert f"({value / 300:.1%})" in one.observed
    assert one.expected is not None
    assert "95%" in one.expected.en
    if status is Status.WARN:
        assert one.detail is not None
        assert "share something" in one.detail.en


def test_nothing_measured_is_not_fine() -> None:
    found = judged()
    assert {v.status for v in found.values()} == {Status.UNKNOWN}
    assert judged(*alone(100.0, 100.0), ended=False)[LANE].status is Status.UNKNOWN


def test_a_transfer_that_never_ended_is_a_failure_where_others_did() -> None:
    found = judged(*alone(100.0, 100.0), ours(190.0), ours(None, reason=plain("no path is left")))
    assert found[LANE].status is Status.FAIL
    assert "no path is left" in found[LANE].detail.en  # type: ignore[union-attr]
    assert judged(*alone(None, None), ours(None))[LANE].status is Status.UNKNOWN


def test_wrong_bytes_are_a_failure_whatever_the_figure() -> None:
    bad = ours(300.0, correct=False, reason_code="wrong_data", parameters={"bad_count": 3, "first_bad_index": 77})
    one = judged(*alone(100.0, 100.0, 100.0), bad)[LANE]
    assert (one.status, one.reason_code) == (Status.FAIL, "wrong_data")
    assert "3 bytes are not what was sent, the first at 77" in one.detail.en  # type: ignore[union-attr]


def test_within_a_node_nothing_is_expected_of_the_sum() -> None:
    within: dict[str, Scalar] = {"within_node": True, "lane": "n1"}
    ms = [figure(PATH, "n1/lo", 100.0, parameters={"policy": "alone", **within})]
    ms.append(figure(TRANSFER, "n1", 20.0, parameters={"policy": "pull", **within}))
    one = judged(*ms)["n1"]
    assert (one.status, one.subject.kind) == (Status.PASS, "node")
    assert "share its processor" in one.detail.en  # type: ignore[union-attr]


def test_a_criterion_takes_the_place_of_the_bound() -> None:
    ms = (*alone(1e9, 1e9), ours(1.0e9))
    assert judged(*ms, demanded='multipath.as_is.min = "7 Gb/s"')[LANE].status is Status.PASS
    assert judged(*ms, demanded='multipath.as_is.min = "9 Gb/s"')[LANE].status is Status.FAIL
    assert judged(*ms)[LANE].status is Status.WARN


def test_what_was_skipped_says_why() -> None:
    m = figure(TRANSFER, LANE, None, status="skip", reason_code="busy", reason=plain("e0 is busy"))
    one = judged(m)[LANE]
    assert (one.status, one.reason_code) == (Status.SKIP, "busy")


# ------------------------------------------------------------------------------------------- one path


def test_a_path_that_is_slow_alone_is_named_beside_its_peers() -> None:
    found = judged(*alone(100.0, 100.0, 80.0, 100.0), ours(375.0))
    assert {id: v.status for id, v in found.items()} == {LANE: Status.PASS, PATHS[2]: Status.WARN}
    assert "80%" in found[PATHS[2]].detail.en  # type: ignore[union-attr]
    assert judged(*alone(100.0, 100.0, 40.0), ours(235.0))[PATHS[2]].status is Status.FAIL
    assert judged(*alone(100.0, 40.0), ours(138.0))[PATHS[1]].status is Status.WARN, "of two nobody knows which"


def test_a_slower_port_is_no_slow_path() -> None:
    ms = alone(100.0, 100.0, 25.0)
    ms = [
        msgspec.structs.replace(m, parameters={**m.parameters, "port_speed": speed})
        for m, speed in zip(ms, (100.0, 100.0, 25.0), strict=True)
    ]
    assert set(judged(*ms, ours(222.0))) == {LANE}


def test_a_path_that_carries_nothing_alone_is_named_with_why() -> None:
    found = judged(*alone(100.0, None, 100.0), ours(198.0))
    assert (found[PATHS[1]].status, found[LANE].status) == (Status.FAIL, Status.PASS)
    assert "no route to host" in found[PATHS[1]].detail.en  # type: ignore[union-attr]


def test_a_path_that_failed_is_named_with_its_cause_and_what_the_probes_found() -> None:
    seen = transfer(PathChange(0.4, 1, "suspect", "stalled"), PathChange(1.4, 1, "failed", "error", 104))
    finding = PathFinding("nic", ["n2/e1"], ["n2"], 0.993, Drain(Action.ISOLATE, ["n2/e1"]), bad=24, tried=24)
    fault = PathFault("multipath.as_is#0", 5.0, "as_is", [PATHS[1]], finding, 96)
    found = judged(*alone(100.0, 100.0, 100.0), ours(290.0), transfers=(seen,), faults=(fault,))
    path = found[PATHS[1]]
    assert path.status is Status.FAIL
    assert path.detail is not None
    for words in ("failed", "Connection reset by peer", "96 TCP probes", "NIC n2/e1", "99%", "24 of 24"):
        assert words in path.detail.en
    nic = found["n2/e1"]
    assert (nic.status, nic.subject.kind, nic.nodes, nic.action) == (Status.FAIL, "nic", ["n2"], Action.ISOLATE)


def test_of_several_connections_it_is_told_which_one_failed() -> None:
    seen = transfer(PathChange(1.4, 1, "failed", "silent", 0, 2), connections=8)
    detail = judged(*alone(100.0, 100.0, 100.0), ours(290.0), transfers=(seen,))[PATHS[1]].detail
    assert detail is not None
    assert "connection 3 failed" in detail.en
    assert "连接 3 失效" in detail.zh


def test_a_path_that_was_only_suspect_is_not_accused() -> None:
    seen = transfer(PathChange(0.4, 1, "suspect", "stalled"), PathChange(0.5, 1, "healthy", "delivered"))
    fault = PathFault("multipath.as_is#0", 5.0, "as_is", [PATHS[1]], None, 96)
    assert set(judged(*alone(100.0, 100.0, 100.0), ours(290.0), transfers=(seen,), faults=(fault,))) == {LANE}


# ------------------------------------------------------------------------------------------ rehearsals


def test_a_rehearsed_cut_is_told_and_accuses_nobody() -> None:
    seen = transfer(
        PathChange(0.37, 0, "suspect", "stalled"), PathChange(1.37, 0, "failed", "silent"),
        scenario="cut", planted=True, recovered=0.45,
    )  # fmt: skip
    finding = PathFinding("path", PATHS[0].split("→"), ["n1", "n2"], 0.99, Drain(Action.MONITOR), bad=9, tried=9)
    fault = PathFault("multipath.cut#0", 5.0, "cut", [PATHS[0]], finding, 48, rehearsed=True)
    planted: dict[str, Scalar] = {"planted": PATHS[0], "planted_at": 0.25, "bytes": 300}
    ms = (*alone(100.0, 100.0, 100.0, scenario="cut"), ours(228.0, "cut", parameters=planted))
    found = judged(*ms, scenario="cut", transfers=(seen,), faults=(fault,))
    assert set(found) == {LANE}
    one = found[LANE]
    assert one.status is Status.PASS
    assert one.detail is not None
    for words in (PATHS[0], "suspect", "200 ms after that", "48 TCP probes", "rehearsed"):
        assert words in one.detail.en
    slower = (*ms[:-1], ours(200.0, "cut", parameters=planted))
    assert judged(*slower, scenario="cut", transfers=(seen,))[LANE].status is Status.WARN


def test_another_path_that_fails_in_a_rehearsal_is_a_failure() -> None:
    seen = transfer(PathChange(0.6, 2, "failed", "refused", 111), scenario="cut", planted=True)
    ms = (*alone(100.0, 100.0, 100.0, scenario="cut"), ours(228.0, "cut"))
    found = judged(*ms, scenario="cut", transfers=(seen,))
    assert found[PATHS[2]].status is Status.FAIL
    assert PATHS[0] not in found


def test_what_is_ambiguous_accuses_no_part() -> None:
    seen = transfer(PathChange(1.4, 1, "failed", "silent"))
    either = msgspec.convert(
        [
            {"kind": "nic", "ends": ["n1/e1"], "probability": 0.5},
            {"kind": "nic", "ends": ["n2/e1"], "probability": 0.5},
        ],
        list[Any],
    )
    raw = {
        "kind": "ambiguous", "ends": ["n1/e1", "n2/e1"], "nodes": ["n1", "n2"], "confidence": 0.99,
        "drain": {"action": "monitor"}, "candidates": either,
    }  # fmt: skip
    fault = PathFault("multipath.as_is#0", 5.0, "as_is", [PATHS[1]], msgspec.convert(raw, PathFinding), 96)
    found = judged(*alone(100.0, 100.0, 100.0), ours(290.0), transfers=(seen,), faults=(fault,))
    assert set(found) == {LANE, PATHS[1]}
    assert "ambiguous: NIC n1/e1 or NIC n2/e1" in found[PATHS[1]].detail.en  # type: ignore[union-attr]
