"""Which GPUs a rank drives."""

from __future__ import annotations

import pytest

from cwai_bench.errors import UsageError
from cwai_bench.plan import Choice, make_plan
from cwai_bench.probes import Options, World
from cwai_bench.probes.cards import of_rank


def seen(*nodes: tuple[str, int, int]) -> tuple[tuple[str, int], ...]:
    """``(node, ranks, GPUs that each sees)``."""
    return tuple((node, count) for node, ranks, count in nodes for _ in range(ranks))


def test_a_rank_for_each_card_drives_one() -> None:
    ranks = seen(("a", 8, 8), ("b", 8, 8))
    assert [of_rank(r, ranks) for r in range(16)] == [(i,) for i in (*range(8), *range(8))]


def test_a_rank_for_each_node_drives_all() -> None:
    ranks = seen(("a", 1, 8), ("b", 1, 4))
    assert of_rank(0, ranks) == tuple(range(8))
    assert of_rank(1, ranks) == (0, 1, 2, 3)
    assert of_rank(0, ranks, wanted=2) == (0, 1)


def test_ranks_share_cards_evenly() -> None:
    assert [of_rank(r, seen(("a", 2, 8))) for r in range(2)] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    with pytest.raises(UsageError, match="3 ranks on a cannot share 8 GPUs"):
        of_rank(0, seen(("a", 3, 8)), environ={})


def test_a_launcher_that_gave_each_rank_its_card_has_the_say() -> None:
    assert [of_rank(r, seen(("a", 4, 1))) for r in range(4)] == [(0,)] * 4


def test_more_ranks_than_cards_need_the_library_s_consent() -> None:
    ranks = seen(("a", 4, 2))
    with pytest.raises(UsageError, match="4 ranks on a cannot share 2 GPUs"):
        of_rank(3, ranks, environ={})
    assert [of_rank(r, ranks, environ={"NCCL_MULTI_RANK_GPU_ENABLE": "1"}) for r in range(4)] == [
        (0,),
        (1,),
        (0,),
        (1,),
    ]


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="sees no GPU"):
        of_rank(0, seen(("a", 1, 0)))
    with pytest.raises(UsageError, match="a has 4"):
        of_rank(0, seen(("a", 1, 4)), wanted=8)


def _planned(world: World, **options: object) -> tuple[set[str], list[str]]:
    plan = make_plan(Choice("collective", options=Options(**options)), world)  # type: ignore[arg-type]
    return {spec.id.partition(".")[0] for spec in plan.probes}, [item.reason_code for item in plan.left_out]


def test_the_library_is_that_of_the_cards() -> None:
    world = World(2, ("a", "b"), True, cards=(("a", 8), ("b", 8)))
    assert _planned(world) == ({"nccl", "mpi"}, [])
    assert _planned(world, library="mpi") == ({"mpi"}, [])
    assert _planned(World(2, ("a", "b"), True, cards=(("a", 8), ("b", 0)))) == ({"mpi"}, [])
    assert _planned(World(2, ("a", "b"), True)) == ({"mpi"}, [])
    npus = World(2, ("a", "b"), True, cards=(("a", 0), ("b", 0)), npus=(("a", 8), ("b", 8)))
    assert _planned(npus) == ({"hccl", "mpi"}, [])


def test_nccl_without_cards_or_with_one_says_why() -> None:
    with pytest.raises(UsageError, match="b has no NVIDIA GPU"):
        _planned(World(2, ("a", "b"), True, cards=(("a", 8), ("b", 0))), library="nccl")
    with pytest.raises(UsageError, match="two GPUs or more"):
        _planned(World(1, ("a",), False, cards=(("a", 1),)), library="nccl")
    assert _planned(World(1, ("a",), False, cards=(("a", 8),)), library="nccl") == ({"nccl"}, [])


def test_hccl_without_npus_or_with_one_says_why() -> None:
    with pytest.raises(UsageError, match="b has no Ascend NPU"):
        _planned(World(2, ("a", "b"), True, npus=(("a", 8), ("b", 0))), library="hccl")
    with pytest.raises(UsageError, match="two NPUs or more"):
        _planned(World(1, ("a",), False, npus=(("a", 1),)), library="hccl")
    with pytest.raises(UsageError, match="3 ranks on a cannot share 8 NPUs"):
        _planned(World(3, ("a",), True, npus=(("a", 8),) * 3), library="hccl")


def test_with_and_without_sharp_are_two_of_one_run() -> None:
    world = World(1, ("a",), False, cards=(("a", 8),))
    plan = make_plan(Choice("collective", options=Options(operations=("all_reduce",), sharp="both")), world)
    assert [(s.id, s.parameters["sharp"]) for s in plan.probes if s.id.startswith("nccl")] == [
        ("nccl.all_reduce#0", "on"),
        ("nccl.all_reduce#1", "off"),
    ]


def test_loopback_is_within_one_process() -> None:
    assert _planned(World(1, ("a",), False), library="loopback") == ({"loopback"}, [])
    with pytest.raises(UsageError, match="within one process"):
        _planned(World(2, ("a",), True), library="loopback")
