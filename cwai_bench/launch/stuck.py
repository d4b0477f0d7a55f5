"""Who holds up a collective in which no rank gets any further: by where each stands. Pure; the keepers ask it.

All ranks of a collective wait when one does. The one to look at is the one whose process is stopped, or says nothing
any more while the others do; else the one that is not yet where the others wait, when they are the more. Where all are
at the same place, or everybody is stopped (somebody suspended the run), nobody is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from cwai_bench.model import Scalar
from cwai_bench.render.units import size
from cwai_bench.text import Text

STUCK_SECONDS = 5.0
"""A rank whose progress has been the same for so long stands still."""
SECONDS_PER_BYTE = 1e-7
"""What one iteration may take besides before its ranks are said to lag: that is 10 MB/s, of no network to train on."""
STOPPED = ("T", "t")
IDLE = "idle"
_PHASES = (IDLE, "connect", "agree", "verify", "warmup", "timed", "close")
"""In the order in which a point goes through them."""
STEP = "step"
"""Of progress: a number that the probe counts up whenever a point begins and ends."""

Place = tuple[int, int, int]


class Standing(msgspec.Struct, frozen=True):
    """Where a rank stands. ``state``: the letter of its process. ``still``, ``silent``: seconds since its progress
    changed, and since its last heartbeat."""

    rank: int
    node: str
    item: str
    progress: dict[str, Scalar]
    state: str
    still: float
    silent: float


def suspects(ranks: Sequence[Standing], operation: str) -> list[tuple[int, Text]]:
    """Which of ``ranks`` (all that are not over) hold up the others in ``operation``, and why one says so."""
    if not ranks or min(r.still for r in ranks) < STUCK_SECONDS or len({r.item for r in ranks}) > 1:
        return []
    stopped = [r for r in ranks if r.state in STOPPED]
    if stopped:
        why = Text("the process is stopped (state T)", "进程已被暂停（状态 T）")
        return _told(stopped, ranks, operation, why) if len(stopped) < len(ranks) else []
    mute = [r for r in ranks if r.silent >= STUCK_SECONDS]
    if mute:
        why = Text("no heartbeat any more", "已无心跳")
        return _told(mute, ranks, operation, why) if len(mute) < len(ranks) else []
    largest = max((_number(r, "size") for r in ranks if r.progress.get("what") == operation), default=0)
    if min(r.still for r in ranks) < STUCK_SECONDS + SECONDS_PER_BYTE * largest:
        return []
    places = _places(ranks, operation)
    last = min(places.values(), default=None)
    behind = [r for r in ranks if places.get(r.rank) == last]
    if last is None or 2 * len(behind) > len(ranks):
        return []
    why = Text("it lags behind the others, which wait for it", "落后于其他进程，其他进程均在等待它")
    return _told(behind, ranks, operation, why)


def _places(ranks: Sequence[Standing], operation: str) -> dict[int, Place]:
    """By rank, how far it is: the point, the phase, the iteration. Empty where that cannot be compared.

    Without a step, one that is idle has not begun what the others are at when it was at another size before; at the
    same size it may as well have ended it.
    """
    if any(r.progress.get("phase") not in _PHASES for r in ranks if r.progress.get("what") == operation):
        return {}
    if all(STEP in r.progress for r in ranks):
        return {r.rank: _place(_number(r, STEP), r) for r in ranks}
    begun = [r for r in ranks if r.progress.get("what") == operation]
    sizes = {_number(r, "size") for r in begun if r.progress["phase"] != IDLE}
    at = {r.rank for r in begun if _number(r, "size") in sizes}
    if len(sizes) != 1 or any(r.progress["phase"] == IDLE for r in begun if r.rank in at):
        return {}
    return {r.rank: _place(1, r) if r.rank in at else (0, 0, 0) for r in ranks}


def _place(step: int, r: Standing) -> Place:
    return step, _PHASES.index(str(r.progress.get("phase", IDLE))), _number(r, "iteration")


def _told(of: Sequence[Standing], ranks: Sequence[Standing], operation: str, why: Text) -> list[tuple[int, Text]]:
    """Why, where it stands, and where most of the others do."""
    named = {r.rank for r in of}
    others = [r for r in ranks if r.rank not in named]
    waits = Counter(_where(r, operation) for r in others).most_common(1)[0][0]
    form = Text(
        "{w}; nothing has moved for {s:.0f} s: it is at {a} (process state {p}), the others at {b}",
        "{w}；已 {s:.0f} 秒毫无进展：它停在 {a}（进程状态 {p}），其他进程停在 {b}",
    )
    return [
        (
            r.rank,
            form.fill(w=why, s=r.still, a=_where(r, operation), p=r.state or "?", b=waits),
        )
        for r in of
    ]


def _where(r: Standing, operation: str) -> Text:
    if r.progress.get("what") != operation:
        return Text("the beginning of {o}", "{o} 开始之前").fill(o=operation)
    return Text("{o} of {s}, {p}, iteration {i}", "{o} {s}，{p} 阶段，第 {i} 次迭代").fill(
        o=operation, s=size(_number(r, "size")), p=r.progress.get("phase", "?"), i=_number(r, "iteration")
    )


def _number(r: Standing, key: str) -> int:
    value = r.progress.get(key, 0)
    return int(value) if isinstance(value, int | float) else 0
