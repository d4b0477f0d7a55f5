"""The search for a slow part over real communicators, and the verdicts on what it names."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cwai_bench.judge.slow_part import slow_part_verdicts
from cwai_bench.model import Measurement, ProbeSpec, Run, Status
from cwai_bench.probes import Options, World
from cwai_bench.probes.collective import LIBRARIES, _plan_slow_part
from tests.mpi.conftest import AS_ROOT

MPIRUN = str(Path(sysconfig.get_path("scripts")) / "mpirun")


def searched(nodes: str, planted: str) -> list[Measurement]:
    done = subprocess.run(
        [
            *(MPIRUN, "-np", str(len(nodes.split(","))), "--map-by", ":OVERSUBSCRIBE"),
            *("--mca", "mpi_yield_when_idle", "1", sys.executable),
            *(str(Path(__file__).with_name("slow_part_ranks_program.py")), nodes, planted),
        ],
        env={**os.environ, **AS_ROOT},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout, type=list[Measurement])


def spec() -> ProbeSpec:
    (found,) = _plan_slow_part(LIBRARIES["mpi"], World(5, ("a",), True), Options(find_slow=True))
    assert isinstance(found, ProbeSpec)
    return found


def judged(ms: list[Measurement]) -> list[tuple[str, str, Status, str]]:
    run: Any = type("Run", (), {"measurements": ms})
    return [(v.subject.kind, v.subject.id, v.status, v.observed) for v in slow_part_verdicts(cast_run(run), spec())]


def cast_run(run: Any) -> Run:
    return run  # type: ignore[no-any-return]


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("nodes", "planted", "kind", "who"),
    [
        ("a,b,c,d,e", "3", "node", "d"),
        ("a,b,c,d,e", "1-2", "link", "b ↔ c"),
        ("a,a,a,a,a", "4", "card", "a/4"),
    ],
)
def test_a_slow_part_is_named(nodes: str, planted: str, kind: str, who: str) -> None:
    ms = searched(nodes, planted)
    ((found, subject, status, observed),) = judged(ms)
    assert (found, subject, status) == (kind, who, Status.FAIL)
    assert "others" in observed
    groups = [m for m in ms if m.metric == "mpi.part.bandwidth"]
    assert len(groups) > 5, "every figure is kept"
    assert {m.parameters["round"] for m in groups} == set(range(1 + max(int(m.parameters["round"]) for m in groups)))


@pytest.mark.mpi
def test_where_nothing_is_slow_nobody_is_named() -> None:
    ms = searched("a,b,c,d,e", "0-1-2-3-4")  # the whole alone is slow: no part is
    assert not [m for m in ms if m.parameters.get("kind") in ("node", "link", "card")]


def told(**parameters: str | float) -> Measurement:
    from cwai_bench.model import Subject

    return Measurement(
        metric="mpi.slow_part",
        unit="B/s",
        subject=Subject("group", "all"),
        samples=[5e9],
        parameters={"usual": 10e9, **parameters},
        started=0.0,
        duration=0.0,
        node="a",
        rank=0,
        spec="mpi.slow_part#0",
    )


def test_what_is_not_decided_is_a_warning() -> None:
    ((kind, _, status, _),) = judged([told(kind="ambiguous", members="a,b")])
    assert (kind, status) == ("group", Status.WARN)


def test_what_is_hardly_slower_is_a_warning() -> None:
    slight = msgspec.structs.replace(told(kind="node", members="a"), samples=[9e9])
    assert [(subject, status) for _, subject, status, _ in judged([slight])] == [("a", Status.WARN)]


def test_nothing_named_is_a_pass_and_nothing_measured_is_not() -> None:
    whole = msgspec.structs.replace(told(), parameters={})
    assert [status for *_, status, _ in judged([whole])] == [Status.PASS]
    assert judged([]) == []
    late = msgspec.structs.replace(told(), parameters={}, status="timeout", samples=[])
    assert [status for *_, status, _ in judged([late])] == [Status.UNKNOWN]


def test_it_is_planned_only_when_asked_for() -> None:
    world = World(4, ("a", "b", "c", "d"), True)
    assert _plan_slow_part(LIBRARIES["mpi"], world, Options()) == []
    assert _plan_slow_part(LIBRARIES["nccl"], world, Options(find_slow=True)) == [], "not chosen"
