"""Which cards a rank drives in a collective: one each, or several where a node has fewer ranks than cards."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cwai_bench.errors import CwaiError, UsageError
from cwai_bench.text import Text

Seen = tuple[tuple[str, int], ...]
"""Of each rank its node and how many cards it sees."""


@dataclass(frozen=True)
class Kind:
    """``shared``: with one of these variables, ranks may share a card. ``look``: how many this process sees; 0 without
    a driver. ``hint``: what to do where a rank sees none. ``place``: of an ordinal, how facts call the card: by its PCI
    address, an NPU by its number in /dev."""

    name: str
    absent: Text
    hint: Text
    look: Callable[[], int]
    place: Callable[[int], str]
    shared: tuple[str, ...] = ()


def _gpus() -> int:
    from cwai_bench import native

    try:
        return len(native.gpus())
    except CwaiError:
        return 0


def _pci(ordinal: int) -> str:
    from cwai_bench import native

    return native.gpus()[ordinal].pci


def _npus() -> int:
    from cwai_bench import native

    try:
        return native.npus()
    except CwaiError:
        return 0


def _device(ordinal: int) -> str:
    """ASCEND_RT_VISIBLE_DEVICES lists numbers in /dev, in the order of the ordinals."""
    visible = os.environ.get("ASCEND_RT_VISIBLE_DEVICES", "").split(",")
    return f"NPU {visible[ordinal].strip() if visible != [''] else ordinal}"


GPU = Kind(
    "GPU",
    Text("{n} has no NVIDIA GPU, or no driver", "{n} 没有 NVIDIA GPU 或没有驱动"),
    Text("see CUDA_VISIBLE_DEVICES and the server check", "请检查 CUDA_VISIBLE_DEVICES，并运行服务器检测"),
    _gpus,
    _pci,
    # NCCL 2.30.3, env.rst; before that it refuses what looks like one host.
    ("NCCL_MULTI_RANK_GPU_ENABLE", "NCCL_HOSTID"),
)
NPU = Kind(
    "NPU",
    Text(
        "{n} has no Ascend NPU, no driver, or no CANN toolkit that is found (ASCEND_HOME_PATH)",
        "{n} 没有昇腾 NPU、没有驱动，或找不到 CANN（ASCEND_HOME_PATH）",
    ),
    Text(
        "see ASCEND_RT_VISIBLE_DEVICES, source set_env.sh of CANN, and run the server check",
        "请检查 ASCEND_RT_VISIBLE_DEVICES、source CANN 的 set_env.sh，并运行服务器检测",
    ),
    _npus,
    _device,
)


def of_rank(
    rank: int, seen: Seen, wanted: int = 0, environ: Mapping[str, str] | None = None, kind: Kind = GPU
) -> tuple[int, ...]:
    """The ordinals of the cards of ``rank``; ``wanted`` of each node, 0 for all. Raises UsageError where ranks and
    cards do not go together."""
    node, visible = seen[rank]
    here = [r for r, (other, _) in enumerate(seen) if other == node]
    index, ranks = here.index(rank), len(here)
    if visible == 0:
        raise UsageError(
            Text("rank {r} on {n} sees no {k}", "{n} 上的 rank {r} 看不到 {k}").fill(r=rank, n=node, k=kind.name),
            kind.hint,
        )
    if visible == 1 and ranks > 1 and all(seen[r][1] == 1 for r in here):
        # The launcher gave each rank its own, or there is one that they share: the library tells.
        return (0,)
    if wanted > visible:
        raise UsageError(
            Text("--cards {w}: {n} has {v}", "--cards {w}：{n} 只有 {v} 张卡").fill(w=wanted, n=node, v=visible),
            Text("leave it out for all", "省略则使用全部"),
        )
    cards = wanted or visible
    if ranks > cards and any((os.environ if environ is None else environ).get(name) for name in kind.shared):
        return (index % cards,)
    if cards % ranks != 0:
        raise UsageError(
            Text("{r} ranks on {n} cannot share {c} {k}s evenly", "{n} 上的 {r} 个进程无法均分 {c} 张 {k}").fill(
                r=ranks, n=node, c=cards, k=kind.name
            ),
            Text("start one rank for each {k}, or one for all", "请每张 {k} 一个进程，或全部使用一个进程").fill(
                k=kind.name
            ),
        )
    share = cards // ranks
    return tuple(range(index * share, (index + 1) * share))
