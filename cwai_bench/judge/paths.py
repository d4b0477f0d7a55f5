"""A path of RDMA against what its ports should reach, and what the counters of both ends say of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cwai_bench.goodput import SMALLEST_JUDGED, Expected, Thresholds, cause_of, expected_of
from cwai_bench.judge.found import joined
from cwai_bench.judge.ports import Sign, added, bytes_of, explained
from cwai_bench.model import Measurement, Status, stats_of
from cwai_bench.render.units import gigabits
from cwai_bench.text import Text

RDMA = ("verbs", "npu")
"""Transports that the ports limit, not a CPU."""
SIGNS = 6
"""As many as a verdict says."""


class Standing(NamedTuple):
    """``share`` of ``expected.at_full_mtu``, by the best measurement of the verb that does worst."""

    status: Status
    share: float
    measured: float
    verb: str
    expected: Expected

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


def standing(ms: Sequence[Measurement], thresholds: Thresholds) -> Standing | None:
    """How a path does, by the measurements of one subject: of each verb its best figure, since one stream or small
    messages need not fill it. None where nothing is expected, or the rate that the driver tells was surpassed.

    Held against the largest MTU there is: a small one is a fault of the setting, and is named as the cause.
    """
    best: dict[str, Standing] = {}
    for m in ms:
        size = m.parameters.get("bytes")
        if m.parameters.get("transport") not in RDMA or m.unit != "B/s":
            continue
        if not isinstance(size, int) or size < SMALLEST_JUDGED:
            continue
        stats, expected = m.stats or stats_of(m.samples), expected_of(m.parameters)
        if expected is None or stats is None:
            continue
        rate = m.parameters["link_speed"]
        if isinstance(rate, int | float) and stats.p50 > rate:
            return None
        share = stats.p50 / expected.at_full_mtu
        status = Status.PASS
        if share < thresholds.warn_below:
            status = Status.FAIL if share < thresholds.fail_below else Status.WARN
        verb = str(m.parameters.get("verb"))
        if verb not in best or share > best[verb].share:
            best[verb] = Standing(status, share, stats.p50, verb, expected)
    return min(best.values(), key=lambda one: one.share) if best else None


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
