"""Collectives against what their links and NICs should reach, and what the library's log gives away."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from cwai_bench.collective_bound import Topology
from cwai_bench.judge import judge
from cwai_bench.judge.collectives import log_signs, published, standing
from cwai_bench.judge.route import SOURCE
from cwai_bench.model import (
    Facts,
    Measurement,
    NodeRecord,
    Plan,
    RankEvent,
    Reading,
    Scalar,
    Status,
    Subject,
    Verdict,
    stats_of,
)
from cwai_bench.readers.collective_log import CollectiveLog, collective_log, merge
from tests.unit.test_judge_run import info, run, spec, verdict_of
from tests.unit.test_reader_collective_log import log

GB = 1e9
H100 = Topology(1, 8, "NVIDIA H100 80GB HBM3", 8, 18, 32e9 * 16, 2, 8, 50 * GB)
TWO = replace(H100, nodes=2)


def measured(gbytes: float, size: int = 8 << 30, rank: int = 0, **more: Scalar) -> Measurement:
    """A rank that saw ``gbytes`` of bus bandwidth."""
    parameters: dict[str, Scalar] = {"operation": "all_reduce", "bytes": size, "ranks": 8, "bus_factor": 1.75, **more}
    factor = parameters["bus_factor"]
    assert isinstance(factor, int | float)
    seconds = size * factor / (gbytes * GB)
    return Measurement(
        "nccl.all_reduce.time", "s", Subject("rank", f"n/rank{rank}"), [seconds] * 5, parameters, 0.0, 1.0, "n", rank
    )


@pytest.mark.parametrize(
    ("gbytes", "status"), [(368.0, Status.PASS), (300.0, Status.WARN), (240.0, Status.FAIL), (900.0, Status.UNKNOWN)]
)
def test_a_figure_is_held_against_its_bound(gbytes: float, status: Status) -> None:
    found = standing([measured(gbytes, rank=r) for r in range(8)], H100)
    assert found is not None
    assert found.status is status
    assert found.bus == pytest.approx(gbytes * GB)
    if status is Status.UNKNOWN:
        assert "more than the" in found.words.en
    else:
        assert found.share == pytest.approx(gbytes / 370.3, rel=1e-3)
        assert "% of 370.3 GB/s" in found.words.en


def test_the_slowest_rank_of_the_best_size_counts() -> None:
    ms = [measured(368, rank=0), measured(240, rank=1), measured(2, size=1024, rank=0), measured(2, size=1024, rank=1)]
    found = standing(ms, H100)
    assert found is not None
    assert (found.bytes, found.status) == (8 << 30, Status.FAIL)


def test_sizes_too_small_are_told_and_not_judged() -> None:
    small = standing([measured(120, size=64 << 20), measured(0.1, size=1024)], H100)
    assert small is not None
    assert small.share is not None
    assert small.share < 0.5
    assert (small.status, small.demand()) == (Status.PASS, None)
    both = standing([measured(400, size=64 << 20), measured(240, size=1 << 30)], H100)
    assert both is not None
    assert (both.bytes, both.status) == (1 << 30, Status.FAIL)


def test_pipelined_time_counts_where_it_was_measured() -> None:
    """Isolated, every operation has the barrier's skew in it."""
    (m,) = [measured(200)]
    told = m.stats or stats_of(m.samples)
    assert told is not None
    found = standing([msgspec.structs.replace(m, parameters={**m.parameters, "pipelined": told.p50 * 200 / 368})], H100)
    assert found is not None
    assert found.bus == pytest.approx(368 * GB)


def test_what_is_no_time_of_the_operation_is_left_aside() -> None:
    late = msgspec.structs.replace(measured(9000), metric="nccl.all_reduce.arrival")
    failed = msgspec.structs.replace(measured(1), status="timeout")
    assert standing([late, failed, measured(100, rehearsed="rank 1 late by 1000 us")], H100) is None


def test_the_best_placement_counts_by_its_own_slowest_rank() -> None:
    ms = [measured(240, rank=0), measured(368, rank=0, in_place=True), measured(350, rank=1, in_place=True)]
    found = standing(ms, H100)
    assert found is not None
    assert found.bus == pytest.approx(350 * GB)


def test_the_algorithm_that_the_log_tells_demands_more() -> None:
    ring, nvls = (standing([measured(400, algorithm=a)], H100) for a in ("RING", "NVLS"))
    assert ring is not None
    assert nvls is not None
    assert (ring.status, nvls.status) == (Status.PASS, Status.WARN)


def test_what_is_demanded_is_told_with_its_terms() -> None:
    found = standing([measured(300)], H100)
    assert found is not None
    demand = found.demand()
    assert demand is not None
    assert demand.en.startswith("at least 87 % of 370.3 GB/s, below 75 % it fails; NVLink 18 × 20.6 GB/s")
    assert demand.zh.startswith("不低于 370.3 GB/s 的 87 %，低于 75 % 判为失败；")


def test_where_nothing_is_known_nothing_is_said() -> None:
    assert standing([measured(300)], None) is None
    assert standing([], H100) is None
    assert standing([measured(300, ranks=16)], H100) is None
    unknown = standing([measured(300)], replace(H100, card=""))
    assert unknown is None
    other = standing([measured(300, operation="alltoall", bus_factor=0.875)], H100)
    assert other is not None
    assert (other.status, other.share, other.demand()) == (Status.PASS, None, None)


def test_published_figures_have_their_source() -> None:
    told = published(H100, "all_reduce")
    assert "8 H100 NVLS: 480.0 GB/s (NVIDIA/nccl-tests issue 212)" in [t.en for t in told]
    assert any("demanded (Azure" in t.en for t in told)
    assert any("要求不低于" in t.zh for t in told)


def logged(name: str, **more: object) -> CollectiveLog:
    return collective_log(log(name))._replace(**more)  # type: ignore[arg-type]


def faults(told: CollectiveLog, topology: Topology = TWO, sharp: bool | None = None) -> list[str]:
    return [sign.text.en for sign in log_signs(told, topology, sharp=sharp) if sign.fault]


def test_a_log_that_is_well_has_no_fault() -> None:
    assert faults(logged("nccl_h100_two_nodes.log")) == []


def test_rails_that_are_there_while_sockets_are_used() -> None:
    (said,) = faults(logged("nccl_a100_sockets.log"))
    assert said.startswith("the library used sockets though there are 8 RDMA rails: it found no device")
    (said,) = faults(logged("nccl_a100_sockets.log", environment={"NCCL_IB_DISABLE": "1"}))
    assert "NCCL_IB_DISABLE=1 is set" in said
    assert faults(logged("nccl_a100_sockets.log"), replace(TWO, nics=0)) == [], "there is nothing else"
    assert faults(logged("nccl_a100_sockets.log"), H100) == [], "one node needs no network"


def test_processes_that_disagree_are_a_fault() -> None:
    both = merge([logged("nccl_a100_sockets.log"), logged("nccl_h100_two_nodes.log")])
    assert faults(both)[0] == "processes use different networks: Socket, IB"


def test_data_that_goes_through_the_host() -> None:
    assert any("no GDRDMA" in said for said in faults(logged("ctccl_sharp.log")))
    assert not any("no GDRDMA" in said for said in faults(logged("nccl_h100_two_nodes.log")))


def test_sharp_that_was_asked_for_and_is_not_used() -> None:
    told = logged("nccl_h100_two_nodes.log")
    (said,) = faults(told, sharp=True)
    assert "disabling CollNet" in said
    assert faults(told, sharp=False) == []
    used = logged("ctccl_sharp.log")
    assert not any("SHARP" in said for said in faults(used, sharp=True))
    assert any("all the same" in said for said in faults(used, sharp=False))
    idle = used._replace(choices=told.choices)
    assert any("another algorithm" in said for said in faults(idle, sharp=True)), "set up, and not taken"


def test_few_nics_and_warnings_explain_and_accuse_nobody() -> None:
    signs = log_signs(logged("nccl_h100_two_nodes.log"), TWO)
    assert [sign.fault for sign in signs] == [False, False]
    assert signs[0].text.en == "only 2 of 8 NICs are used: mlx5_0:1/IB, mlx5_1:1/IB"
    assert "status=12" in signs[1].text.zh


# ------------------------------------------------------------------------------------------------------- a whole run

SWEEP = msgspec.structs.replace(
    spec("nccl.all_reduce"),
    info=msgspec.structs.replace(info("nccl.all_reduce"), scope="nccl"),
    parameters={"operation": "all_reduce", "sharp": "auto"},
)


def judged(facts: Facts, gbytes: float, said: str = "", nodes: int = 1) -> Verdict:
    """Eight ranks a node, each on a card of its own; ``said``: the log of one of them."""
    names = [f"node{i + 1}" for i in range(nodes)]
    ranks = 8 * nodes
    factor = 2 * (ranks - 1) / ranks
    ms = [
        msgspec.structs.replace(
            measured(gbytes, rank=rank, ranks=ranks, bus_factor=factor),
            node=names[rank // 8],
            spec=SWEEP.id,
            subject=Subject("rank", f"{names[rank // 8]}/rank{rank}"),
            correct=True,
        )
        for rank in range(ranks)
    ]
    source = f"{SOURCE}{SWEEP.id}:0"
    logged = {source: Reading(source, "ok", said)} if said else {}
    known = [msgspec.structs.replace(facts, node=name, readings=facts.readings | logged) for name in names]
    whole = run(
        world_size=ranks,
        plan=Plan([], [SWEEP], [], 1.0),
        nodes=[NodeRecord(name, [*range(8 * i, 8 * i + 8)], True, True) for i, name in enumerate(names)],
        facts=known,
        measurements=ms,
        events=[RankEvent(rank, names[rank // 8], 5.0, "finished") for rank in range(ranks)],
    )
    return verdict_of(judge(whole), "nccl.all_reduce")


@pytest.mark.parametrize(("gbytes", "status"), [(368, Status.PASS), (310, Status.WARN), (240, Status.FAIL)])
def test_a_run_is_held_against_the_links_of_its_nodes(good_facts: Facts, gbytes: float, status: Status) -> None:
    verdict = judged(good_facts, gbytes)
    assert verdict.status is status
    assert verdict.expected is not None
    assert "NVLink 18 × 20.6 GB/s" in verdict.expected.en
    if status is not Status.PASS:
        assert verdict.detail is not None
        assert f"% of {370.3}" in verdict.detail.en
        assert "8 H100 NVLS: 480.0 GB/s" in verdict.detail.en


def test_the_algorithm_in_the_log_of_a_run_demands_more(good_facts: Facts) -> None:
    said = "n:1:1 [0] NCCL INFO AllReduce: 8589934592 Bytes -> Algo NVLS proto SIMPLE channel{Lo..Hi}={0..15}\n"
    assert judged(good_facts, 400).status is Status.PASS
    assert judged(good_facts, 400, said).status is Status.WARN


def test_a_run_over_sockets_beside_rails_fails_whatever_its_figure(good_facts: Facts) -> None:
    verdict = judged(good_facts, 368, log("nccl_a100_sockets.log"), nodes=2)
    assert verdict.status is Status.FAIL
    assert verdict.detail is not None
    assert "used sockets though there are 8 RDMA rails" in verdict.detail.en
    assert "使用了 Socket" in verdict.detail.zh
    assert judged(good_facts, 368, log("nccl_h100_two_nodes.log"), nodes=2).status is Status.PASS


def test_a_figure_of_a_run_that_cannot_be_is_not_known(good_facts: Facts) -> None:
    verdict = judged(good_facts, 900)
    assert verdict.status is Status.UNKNOWN
    assert verdict.detail is not None
    assert "more than the 700.0 GB/s that can be" in verdict.detail.en
