"""Who holds up a collective in which nothing moves."""

from __future__ import annotations

import msgspec
import pytest

from cwai_bench.launch.stuck import STUCK_SECONDS, Standing, suspects
from cwai_bench.model import Scalar


def standing(rank: int, iteration: int = 7, *, phase: str = "timed", size: int = 4096, **changes: object) -> Standing:
    progress: dict[str, Scalar] = {"phase": phase, "what": "all_reduce", "size": size, "iteration": iteration}
    found = Standing(rank, f"node{rank + 1}", "mpi.all_reduce#0", progress, "S", 6.0, 0.3)
    return msgspec.structs.replace(found, **changes)


def named(*ranks: Standing) -> list[int]:
    return [rank for rank, _ in suspects(ranks, "all_reduce")]


def test_a_stopped_process_is_named_with_where_all_are() -> None:
    ((rank, why),) = suspects([standing(0), standing(1, 6, state="T"), standing(2)], "all_reduce")
    assert rank == 1
    assert why.en == (
        "the process is stopped (state T); nothing has moved for 6 s: it is at all_reduce of 4 KiB, timed, iteration 6 "
        "(process state T), the others at all_reduce of 4 KiB, timed, iteration 7"
    )
    assert "第 6 次迭代" in why.zh


def test_as_long_as_one_moves_nobody_is_named() -> None:
    assert not named(standing(0, still=STUCK_SECONDS - 0.1), standing(1, state="T"))
    assert not named()


def test_a_run_that_is_suspended_as_a_whole_accuses_nobody() -> None:
    assert not named(standing(0, state="T"), standing(1, state="T"))


def test_who_says_nothing_any_more_is_named() -> None:
    assert named(standing(0), standing(1, silent=STUCK_SECONDS, state="D"), standing(2)) == [1]
    assert not named(*(standing(r, silent=STUCK_SECONDS) for r in range(3)))


@pytest.mark.parametrize(
    "behind",
    [
        standing(1, 6),
        standing(1, 900, phase="warmup"),
        standing(1, 900, phase="verify"),
        standing(1, 900, size=2048, phase="idle"),
        standing(1, 900, size=8192, phase="idle"),
        standing(1, progress={"phase": "idle", "what": "broadcast", "size": 1 << 26, "iteration": 900}),
        standing(1, progress={}),
    ],
    ids=["iteration", "warmup", "verify", "between", "between sweeps", "before", "nothing"],
)
def test_who_lags_behind_is_named(behind: Standing) -> None:
    assert named(standing(0), behind, standing(2)) == [1]
    assert named(standing(0), behind) == [1]


def test_a_step_that_the_probe_counts_says_more_than_sizes() -> None:
    """In place after out of place: the same size once more."""

    def at(rank: int, step: int, phase: str) -> Standing:
        base = standing(rank, phase=phase)
        return msgspec.structs.replace(base, progress={**base.progress, "step": step})

    assert named(at(0, 5, "verify"), at(1, 4, "idle"), at(2, 5, "verify")) == [1]
    assert named(at(0, 5, "verify"), at(1, 5, "idle"), at(2, 5, "verify")) == [1]
    assert named(at(0, 6, "idle"), at(1, 5, "timed"), at(2, 6, "idle")) == [1]
    same_size = [standing(0, phase="verify"), standing(1, phase="idle"), standing(2, phase="verify")]
    assert not named(*same_size)  # without it, who is idle may be ahead as well
    assert not named(standing(0, size=8), standing(1, size=16), standing(2, size=8))
    assert not named(standing(0, phase="of a later version"), standing(1, 6))


def test_all_at_one_place_or_most_of_them_behind_accuse_nobody() -> None:
    assert not named(standing(0), standing(1), standing(2))
    assert not named(standing(0), standing(1, 6), standing(2, 6))
    assert not named(standing(0), standing(1, item="mpi.broadcast#0"))


def test_a_large_operation_may_take_its_time() -> None:
    large = 1 << 30
    assert not named(standing(0, size=large), standing(1, 6, size=large))
    assert named(standing(0, size=large, still=120.0), standing(1, 6, size=large, still=120.0)) == [1]
    assert named(standing(0, size=large), standing(1, 6, size=large, state="T")) == [1]
