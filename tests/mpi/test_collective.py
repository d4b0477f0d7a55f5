"""The native sweep on two and three real ranks: right answers pass, wrong ones are found where they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from cwai_bench.errors import UsageError
from cwai_bench.model import LeftOut, ProbeSpec
from cwai_bench.native import ELEMENTS, over_loopback
from cwai_bench.plan import Choice, make_plan
from cwai_bench.probes import Options, World
from cwai_bench.probes.collective import OPERATIONS, sizes_of
from tests.mpi.conftest import AS_ROOT

IN_BLOCKS = ("all_gather", "reduce_scatter", "alltoall", "gather", "scatter")
MPIRUN = Path(sysconfig.get_path("scripts")) / "mpirun"


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    program = Path(__file__).with_name("collective_program.py")
    command = [
        str(MPIRUN),
        "-np",
        str(request.param),
        "--map-by",
        ":OVERSUBSCRIBE",
        "--mca",
        "mpi_yield_when_idle",
        "1",
    ]
    env = {**os.environ, **AS_ROOT}
    done = subprocess.run(
        [*command, sys.executable, str(program)], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = sorted((json.loads(line) for line in done.stdout.splitlines()), key=lambda r: int(r["rank"]))
    assert len(found) == request.param
    return found


@pytest.mark.mpi
def test_every_operation_type_and_size_is_right_on_every_rank(ranks: list[dict[str, Any]]) -> None:
    blocks = len(ranks)
    shares = max(sum(1 + (rank + peer) % 3 for peer in range(blocks)) for rank in range(blocks))
    for rank in ranks:
        # What MPI has: ten types, and three more reductions for two of them; of ten operations six also in place.
        reducing = 2 * 3 * (2 + 1 + 2)
        assert len(rank["points"]) == (10 + 2) * (10 + 6) + reducing
        for name, (size, count, iterations, wrong, first_bad, shortest, *_) in rank["points"].items():
            operation, dtype, _, _, wanted = name.split()
            unit = ELEMENTS[dtype]
            per_call = blocks if operation in IN_BLOCKS else shares if operation == "alltoallv" else 1
            assert (wrong, first_bad) == (0, -1), name
            assert size == count * unit * per_call, name
            assert count == max(1, int(wanted) // unit // per_call), name
            assert 3 <= iterations <= 5, name
            assert 0 < shortest < 1, name


@pytest.mark.mpi
def test_pipelined_times_and_arrivals_are_told_beside(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        for name, (_, _, iterations, _, _, _, pipelined, arrivals, earliest) in rank["points"].items():
            assert (pipelined > 0) == name.endswith(" 1000"), name
            assert arrivals == iterations, name
            assert earliest >= 0, name
        assert rank["clock"][1] < 0.05, "ranks of one host share a clock"
        assert rank["members"] == [rank["rank"]]
        assert rank["size"] == len(ranks)
        assert "MPI" in rank["library"]


@pytest.mark.mpi
def test_who_comes_late_is_told_apart_from_who_waits(ranks: list[dict[str, Any]]) -> None:
    late = {rank["rank"]: rank["late"] for rank in ranks}
    assert late[1] > 0.018
    assert max(median for rank, median in late.items() if rank != 1) < 0.01
    assert max(rank["late_time"] for rank in ranks) < 0.01, "the delay is not in the operation"


@pytest.mark.mpi
def test_all_ranks_did_equally_many_iterations(ranks: list[dict[str, Any]]) -> None:
    for name in ranks[0]["points"]:
        assert len({rank["points"][name][2] for rank in ranks}) == 1, name
    assert all(rank["given"] == [7, 3, None] for rank in ranks)


@pytest.mark.mpi
def test_a_wrong_sum_is_found_with_its_place(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        for operation in ("all_reduce", "reduce_scatter"):
            wrong, first_bad, count = rank["bad"][operation]
            assert wrong == count, operation
            assert first_bad == 0
    assert ranks[0]["bad"]["reduce"][0] == 1024
    assert all(rank["bad"]["reduce"][0] == 0 for rank in ranks[1:]), "only the root of a reduce has an answer"


@pytest.mark.mpi
def test_what_is_no_operation_is_refused(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["refused"]["operation"][0] == "UsageError"
        assert "all_reduced" in rank["refused"]["operation"][1]
        assert "float8" in rank["refused"]["dtype"][2]
        assert "largest size" in rank["refused"]["bytes"][1]
        assert rank["refused"]["unsupported"][0] == "DeviceError"
        assert "all_reduce bfloat16 sum" in rank["refused"]["unsupported"][1]


def test_a_loopback_group_needs_no_mpi() -> None:
    group = over_loopback(3, largest=4096)
    assert (group.size, group.members, group.library, group.broken) == (3, (0, 1, 2), "loopback", False)
    for operation in OPERATIONS:
        point = group.measure(operation, bytes=4096, iterations=3, pipelined=True)
        assert [member.wrong for member in point.members] == [0, 0, 0], operation
        assert len(point.times) == 3
        assert point.pipelined > 0
    assert not group.can("all_reduce", dtype="float16")
    assert group.can("all_gather", dtype="float16")


# ------------------------------------------------------------------------------------ the plan of it


def test_sizes_double_from_the_smallest_to_the_largest() -> None:
    assert sizes_of(Options(min_bytes=8, max_bytes=64)) == [8, 16, 32, 64]
    assert sizes_of(Options(min_bytes=8, max_bytes=100, step_factor=4)) == [8, 32]
    assert sizes_of(Options(min_bytes=8, max_bytes=40, step_bytes=16)) == [8, 24, 40]
    assert len(sizes_of(Options(), 64 << 20)) == 24
    with pytest.raises(UsageError, match="larger than"):
        sizes_of(Options(min_bytes=64, max_bytes=8))
    with pytest.raises(UsageError, match="at least 2"):
        sizes_of(Options(step_factor=1), 64)
    with pytest.raises(UsageError, match="more than 2000 sizes"):
        sizes_of(Options(step_bytes=1), 1 << 20)


def test_the_factors_are_those_of_nccl_tests() -> None:
    assert {name: o.factor(4) for name, o in OPERATIONS.items()} == {
        "all_reduce": 1.5,
        "all_gather": 0.75,
        "reduce_scatter": 0.75,
        "broadcast": 1.0,
        "alltoall": 0.75,
        "alltoallv": 0.75,
        "reduce": 1.0,
        "gather": 0.75,
        "scatter": 0.75,
        "sendrecv": 1.0,
    }


def test_one_rank_is_left_out_of_a_run_and_refused_by_the_sweep() -> None:
    alone = World(1, ("n1",), False)
    plan = make_plan(Choice("run", items=("mpi.*",)), alone)
    assert [item.reason_code for item in plan.left_out] == ["one_rank"] * 7
    with pytest.raises(UsageError, match="two ranks"):
        make_plan(Choice("collective"), alone)


def test_a_budget_leaves_out_what_does_not_fit() -> None:
    world = World(2, ("n1",), True)
    whole = make_plan(Choice("collective"), world)
    short = make_plan(Choice("collective", budget=whole.expected / 2), world)
    assert 0 < len(short.probes) < len(whole.probes) == 10
    assert short.expected <= whole.expected / 2
    assert {item.what for item in short.left_out} == {s.id for s in whole.probes} - {s.id for s in short.probes}


def test_unknown_operations_are_refused() -> None:
    with pytest.raises(UsageError, match="all_reduced"):
        make_plan(Choice("collective", options=Options(operations=("all_reduced",))), World(2, ("n1",), True))


def test_specs_carry_their_deadline() -> None:
    plan = make_plan(Choice("collective", options=Options(item_timeout=9.0)), World(2, ("n1",), True))
    assert {spec.deadline for spec in plan.probes} == {9.0}
    assert all(isinstance(spec, ProbeSpec) and not isinstance(spec, LeftOut) for spec in plan.probes)
