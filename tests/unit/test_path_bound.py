"""What a transfer over several paths can reach at best, and what was measured of it."""

from __future__ import annotations

import pytest

from cwai_bench.model import Measurement, Scalar, Subject, stats_of
from cwai_bench.path_bound import PATH, TRANSFER, Trouble, bound, figures_of

RATES = {"a": 400.0, "b": 200.0, "c": 100.0}


def test_while_nothing_happens_the_bound_is_the_sum() -> None:
    assert bound(7000, RATES) == 700.0
    assert bound(7000, {}) == 0.0


def test_what_is_left_goes_at_the_rate_of_what_is_left() -> None:
    # 2 s at 700, which leaves 5600 for 300 a second
    assert bound(7000, RATES, Trouble("a", 2.0)) == pytest.approx(7000 / (2.0 + 5600 / 300))
    assert bound(7000, RATES, Trouble("a", 2.0, 50.0)) == pytest.approx(7000 / (2.0 + 5600 / 350))


def test_trouble_after_the_end_is_none_and_the_loss_of_the_only_path_leaves_nothing() -> None:
    assert bound(7000, RATES, Trouble("a", 10.0)) == 700.0
    assert bound(7000, {"a": 700.0}, Trouble("a", 1.0)) == 0.0


def figure(metric: str, subject: str, value: float | None, **given: Scalar) -> Measurement:
    samples = [] if value is None else [value]
    parameters: dict[str, Scalar] = {"scenario": "as_is", "lane": "n1→n2", "bytes": 7000, **given}
    return Measurement(
        metric, "B/s", Subject("link", subject), samples, parameters, 0.0, 1.0, "n1", 0, "multipath.as_is#0",
        status="ok" if samples else "error", stats=stats_of(samples),
    )  # fmt: skip


def test_medians_are_taken_over_repetitions_and_first_looks_give_way() -> None:
    (found,) = figures_of(
        [
            figure(PATH, "a", 10.0, policy="alone", repetition=0),
            *(figure(PATH, "a", v, policy="alone", repetition=i + 1) for i, v in enumerate((390.0, 400.0, 500.0))),
            figure(PATH, "b", 200.0, policy="alone", repetition=0),
            figure(PATH, "c", None, policy="alone", repetition=0),
            *(figure(TRANSFER, "n1→n2", v, policy="pull", repetition=1) for v in (540.0, 570.0, 600.0)),
        ]
    )
    assert found.alone == {"a": 400.0, "b": 200.0, "c": 0.0}
    assert (found.goodput, found.sum, found.size) == ({"pull": 570.0}, 600.0, 7000)
    assert found.share() == pytest.approx(0.95)
    assert found.share("equal") is None


def test_nothing_is_expected_within_a_node() -> None:
    (found,) = figures_of(
        [
            figure(PATH, "a", 400.0, policy="alone", repetition=1, within_node=True),
            figure(TRANSFER, "n1", 100.0, policy="pull", repetition=1, within_node=True),
        ]
    )
    assert found.share() is None
