"""Which GPUs a rank drives in a collective: one each, or several where a node has fewer ranks than GPUs."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cwai_bench.errors import CwaiError, UsageError
from cwai_bench.text import Text

SHARED = ("NCCL_MULTI_RANK_GPU_ENABLE", "NCCL_HOSTID")
"""With one of these, ranks may share a GPU (NCCL 2.30.3, env.rst; before that it refuses what looks like one host)."""


def look() -> int:
    """How many NVIDIA GPUs this process sees; 0 without a driver."""
    from cwai_bench import native

    try:
        return len(native.gpus())
    except CwaiError:
        return 0


def of_rank(
    rank: int, seen: tuple[tuple[str, int], ...], wanted: int = 0, environ: Mapping[str, str] | None = None
) -> tuple[int, ...]:
    """The ordinals of the GPUs of ``rank``. ``seen``: of each rank its node and how many GPUs it sees; ``wanted`` GPUs
    of each node, 0 for all. Raises UsageError where ranks and GPUs do not go together."""
    node, visible = seen[rank]
    here = [r for r, (other, _) in enumerate(seen) if other == node]
    index, ranks = here.index(rank), len(here)
    if visible == 0:
        raise UsageError(
            Text("rank {r} on {n} sees no GPU", "{n} 上的 rank {r} 看不到 GPU").fill(r=rank, n=node),
            Text("see CUDA_VISIBLE_DEVICES and the server check", "请检查 CUDA_VISIBLE_DEVICES，并运行服务器检测"),
        )
    if visible == 1 and ranks > 1 and all(seen[r][1] == 1 for r in here):
        # The launcher gave each rank its own, or there is one that they share: NCCL tells.
        return (0,)
    if wanted > visible:
        raise UsageError(
            Text("--cards {w}: {n} has {v}", "--cards {w}：{n} 只有 {v} 张卡").fill(w=wanted, n=node, v=visible),
            Text("leave it out for all", "省略则使用全部"),
        )
    cards = wanted or visible
    if ranks > cards and any((os.environ if environ is None else environ).get(name) for name in SHARED):
        return (index % cards,)
    if cards % ranks != 0:
        raise UsageError(
            Text("{r} ranks on {n} cannot share {c} GPUs evenly", "{n} 上的 {r} 个进程无法均分 {c} 张 GPU").fill(
                r=ranks, n=node, c=cards
            ),
            Text("start one rank for each GPU, or one for all", "请每张 GPU 一个进程，或全部使用一个进程"),
        )
    share = cards // ranks
    return tuple(range(index * share, (index + 1) * share))
