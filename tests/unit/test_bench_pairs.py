"""The arithmetic under the bench table."""

from __future__ import annotations

import itertools
import math

import pytest

from tests.bench.pairs import Chain, Spread, alternate


def test_peer_stands_on_both_sides_of_every_figure_of_ours() -> None:
    order: list[str] = []

    def measured(who: str, value: float) -> float:
        order.append(who)
        return value

    chain = alternate(lambda: measured("ours", 1.0), lambda: measured("peer", 2.0), 3, lambda: None)
    assert order == ["peer", "ours", "peer", "ours", "peer", "ours", "peer"]
    assert (chain.ours, chain.peer) == ([1.0] * 3, [2.0] * 4)


def test_a_steady_drift_favours_nobody() -> None:
    clock = itertools.count()

    def drifting() -> float:
        return 1.01 ** next(clock)

    chain = alternate(drifting, drifting, 20, lambda: None)
    assert math.prod(chain.ratios()) == pytest.approx(1.0)
    assert math.prod(chain.controls()) == pytest.approx(1.0)


def test_scattered_ratios_get_more_pairs_and_steady_ones_do_not() -> None:
    scattered = itertools.cycle([1.0, 2.0, 0.5])

    def pairs_of(ours: itertools.cycle[float] | None) -> int:
        def mine() -> float:
            return next(ours) if ours else 3.0

        return len(alternate(mine, lambda: 1.0, 15, lambda: None, most=40, error=0.02).ours)

    assert pairs_of(scattered) == 40
    assert pairs_of(None) == 15  # three times the peer, but steadily so
    assert Spread.of([1.0, 1.1, 1.2] * 100).error == pytest.approx(1.2533 * 0.2 / (2 * 1.2816) / math.sqrt(300))


def test_ratios_and_differences_are_ours_against_the_peer() -> None:
    chain = Chain([2.0, 2.0], [1.0, 5.0, 4.0])
    assert chain.ratios() == [2.0, 0.5]
    assert chain.differences() == [1.0, -2.0]
    assert chain.controls() == [5.0, 1.25]


def test_spread() -> None:
    spread = Spread.of([float(n) for n in range(1, 22)])
    assert (spread.median, spread.p10, spread.p90, spread.count) == (11.0, 3.0, 19.0, 21)
    assert str(Spread.of([1.0])) == "1.000 [1.000–1.000]"
    with pytest.raises(ValueError, match="nothing"):
        Spread.of([])


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_measurement_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="no measurement"):
        alternate(lambda: value, lambda: 1.0, 1, lambda: None)
