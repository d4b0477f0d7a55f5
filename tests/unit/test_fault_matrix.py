"""Every planted fault is found by exactly the items that should find it, and nodes that are well raise no alarm."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from cwai_bench.checks import CHECKS, ConsistencyCheck, NodeCheck
from cwai_bench.model import Status
from tests.unit.conftest import EVERY, WHOLE
from tests.unit.fault_matrix import ALSO, FAULTS, ITEMS, OTHERWISE, Fault, Matrix, differences, faults

ALL = list(faults())


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    return Matrix(tmp_path_factory.mktemp("matrix"))


@pytest.mark.parametrize("fault", ALL, ids=str)
def test_a_fault_is_found_by_exactly_the_items_that_should(fault: Fault, matrix: Matrix) -> None:
    assert matrix.missed(fault) == []


@pytest.mark.parametrize("check", differences())
def test_a_difference_from_the_baseline_is_found_by_exactly_the_items_that_should(check: str, matrix: Matrix) -> None:
    assert matrix.differing(check, differences()[check]) == []


def test_a_fault_that_nothing_finds_is_missed(matrix: Matrix) -> None:
    nothing = Fault("plain", "storage.space", lambda n: n, Status.FAIL, "/ 99")
    assert matrix.missed(nothing)
    other = nothing._replace(plant=lambda n: n.meminfo("SwapTotal", 8 << 20).meminfo("SwapFree", 0))
    assert "memory.swap changed" in " ".join(matrix.missed(other))
    assert matrix.differing("same.swap", lambda n: n)


@pytest.mark.parametrize("node", EVERY)
def test_a_node_that_is_well_raises_no_alarm(node: str, matrix: Matrix) -> None:
    assert matrix.false_alarms(node) == []


def test_a_node_that_was_mended_is_as_it_was(tmp_path: Path) -> None:
    matrix = Matrix(tmp_path)
    before = {fault.node: matrix.well(fault.node) for fault in FAULTS}
    for fault in FAULTS:
        matrix.missed(fault)
    assert {node: matrix.judged(node) for node in before} == before


def test_the_matrix_is_as_large_as_was_promised_and_lists_nothing_in_vain() -> None:
    assert len(ALL) >= 60
    compared = {c.info.id for c in CHECKS.values() if isinstance(c, ConsistencyCheck)}
    assert compared - set(differences()) == {"same.ascend.super_pod"}, "no recorded node is part of a super-pod"
    assert {f.check for f in ALL} == {id for id in ITEMS if isinstance(CHECKS[id], NodeCheck)}
    per_node = Counter(f.node for f in ALL)
    assert min(per_node[node] for node in (*WHOLE, "a800_roce", "ascend_910b", "mi300x")) >= 8
    assert {*ALSO, *OTHERWISE} <= {(f.check, f.says) for f in ALL}
