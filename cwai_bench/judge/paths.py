"""A path of RDMA against what its ports should reach, and what the counters of both ends say of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cwai_bench.goodput import Expected, Thresholds, cause_of, due
from cwai_bench.judge.found import joined
from cwai_bench.judge.ports import Sign, added, bytes_of, explained
from cwai_bench.model import Measurement, Status, Subject, stats_of
from cwai_bench.render.units import gigabits
from cwai_bench.text import Text

SIGNS = 6
"""As many as a verdict says."""


class Standing(NamedTuple):
    """``share`` of ``expected.at_full_mtu``, by the best measurement of a verb, which is one of ``spec``."""

    status: Status
    share: float
    measured: float
    verb: str
    expected: Expected
    spec: str

    @property
    def words(self) -> Text:
        return Text("{v} {m} Gb/s is {s:.1f} % of {f} Gb/s", "{v} {m} Gb/s，为 {f} Gb/s 的 {s:.1f} %").fill(
            v=self.verb,
            m=gigabits(self.measured),
            s=self.share * 100,
            f=gigabits(self.expected.at_full_mtu),
        )

    def demand(self, thresholds: Thresholds) -> Text:
        return Text(
            "at least {w:g} % of {v} Gb/s, below {f:g} % it fails; {t}",
            "不低于 {v} Gb/s 的 {w:g} %，低于 {f:g} % 判为失败；{t}",
        ).fill(
            w=thresholds.warn_below * 100,
            f=thresholds.fail_below * 100,
            v=gigabits(self.expected.at_full_mtu),
            t=self.expected.terms,
        )


Standings = dict[tuple[Subject, str], Standing]
"""By path and verb."""


def standings(ms: Iterable[Measurement], thresholds: Thresholds) -> Standings:
    """How each path does, by verb: its best figure over all sizes, streams and directions, since one queue pair or
    small messages need not fill it. Absent where nothing is expected: of a NIC with itself, which no wire is between,
    and where the rate that the driver tells was surpassed.

    Held against the largest MTU there is: a small one is a fault of the setting, and is named as the cause.
    """
    best: Standings = {}
    untrue: set[Subject] = set()
    for m in ms:
        rate = m.parameters.get("link_speed")
        if m.subject.kind != "link" or m.status != "ok" or not isinstance(rate, int | float):
            continue
        stats, expected = m.stats or stats_of(m.samples), due(m.parameters, m.unit)
        if expected is None or stats is None:
            continue
        if stats.p50 > rate:
            untrue.add(m.subject)
        share = stats.p50 / expected.at_full_mtu
        status = Status.PASS
        if share < thresholds.warn_below:
            status = Status.FAIL if share < thresholds.fail_below else Status.WARN
        key = m.subject, str(m.parameters.get("verb"))
        if key not in best or share > best[key].share:
            best[key] = Standing(status, share, stats.p50, key[1], expected, m.spec)
    return {key: found for key, found in best.items() if key[0] not in untrue}


def signs(ms: Sequence[Measurement]) -> list[Sign]:
    """What the counters say that moved in all these measurements."""
    return explained(added(m.counters for m in ms), bytes_of(ms))


def because(found: Standing | None, told: Sequence[Sign], thresholds: Thresholds) -> Text | None:
    """Why a path is slow, or is not well though it is fast; None when there is nothing to say."""
    parts: list[Text] = []
    slow = found is not None and found.status is not Status.PASS
    if found is not None and slow:
        cause = cause_of(found.expected, found.measured, thresholds)
        parts += [cause] if cause is not None else []
        parts.append(found.words)
    parts += [sign.text for sign in told if slow or sign.fault][:SIGNS]
    return joined(parts)
