"""A path of RDMA is held against what its ports should reach, and against the counters of both ends."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cwai_bench import config
from cwai_bench.config import Criteria
from cwai_bench.judge import judge
from cwai_bench.model import Measurement, Plan, Scalar, Status, Subject, Verdict
from cwai_bench.text import plain
from tests.unit.test_goodput import GBIT, roce
from tests.unit.test_judge_run import run, spec

PATH = Subject("link", "node1/mlx5_0→node2/mlx5_0")
SPEC = spec("verbs.bandwidth")
RETRIED = {"node1/mlx5_0": {"local_ack_timeout_err": 8}, "node2/mlx5_0": {}}
CONGESTED = {"node1/mlx5_0": {}, "node2/mlx5_0": {"np_cnp_sent": 49}}


def write(gbit: float, parameters: dict[str, Scalar] | None = None, **changes: Any) -> Measurement:
    base = Measurement(
        metric="verbs.write.bandwidth",
        unit="B/s",
        subject=PATH,
        samples=[gbit * GBIT] * 3,
        parameters={"duration": 1.0, **(roce() if parameters is None else parameters)},
        started=1.0,
        duration=1.5,
        node="node2",
        rank=1,
        spec=SPEC.id,
        correct=True,
    )
    return msgspec.structs.replace(base, **changes)


def judged(*ms: Measurement, criteria: Criteria | None = None) -> Verdict:
    made = run(plan=Plan([], [SPEC], [], 1.0), measurements=list(ms))
    (verdict,) = [v for v in judge(made, criteria=criteria).verdicts if v.check == SPEC.info.id]
    return verdict


def detail(verdict: Verdict) -> str:
    return verdict.detail.en if verdict.detail is not None else ""


@pytest.mark.parametrize(
    ("gbit", "status"),
    [(391, Status.PASS), (373, Status.PASS), (371, Status.WARN), (354, Status.WARN), (350, Status.FAIL)],
)
def test_shares_of_what_is_expected(gbit: float, status: Status) -> None:
    """392.1 Gb/s: 372.5 is 95 %, 352.9 is 90 %."""
    verdict = judged(write(gbit))
    assert verdict.status is status
    assert verdict.expected is not None
    assert "at least 95 % of 392.1 Gb/s, below 90 % it fails" in verdict.expected.en
    assert "400 Gb/s × 65536 / (65536 + 16 × 82 + 16) B at MTU 4096" in verdict.expected.en
    assert ("of 392.1 Gb/s" in detail(verdict)) == (status is not Status.PASS)


def test_the_shares_are_the_persons_to_choose() -> None:
    lax = config.parse_criteria("[paths]\nfail_below = 0.5\nwarn_below = 0.6\n", "my.toml")
    assert judged(write(250), criteria=lax).status is Status.PASS
    assert judged(write(220), criteria=lax).status is Status.WARN


def test_a_criterion_of_the_person_stands_in_place_of_ours() -> None:
    own = config.parse_criteria('[criteria]\nverbs.bandwidth.min = "200 Gb/s"\n', "my.toml")
    assert judged(write(250), criteria=own).status is Status.PASS
    assert judged(write(150), criteria=own).status is Status.FAIL


def test_of_each_verb_the_best_figure_of_all_specs_counts() -> None:
    """One queue pair need not fill 400 Gb/s: it is no fault of the path, which four show to be well."""
    several = spec("verbs.bandwidth", 2)
    one, four = write(348, roce(streams=1)), write(390, spec=several.id)
    slow_read = write(300, roce(verb="read"), spec=several.id)

    def statuses(*ms: Measurement) -> list[Verdict]:
        found = judge(run(plan=Plan([], [SPEC, several], [], 1.0), measurements=list(ms))).verdicts
        return [v for v in found if v.check == SPEC.info.id and v.subject == PATH]

    assert [v.status for v in statuses(one, four)] == [Status.PASS, Status.PASS]
    assert [v.status for v in statuses(one)] == [Status.FAIL]
    good, bad = statuses(write(390), slow_read)
    assert (good.status, bad.status) == (Status.PASS, Status.FAIL)
    assert "read 300.0 Gb/s is 76.5 %" in detail(bad)


@pytest.mark.parametrize(
    "parameters", [roce(0), roce(2.5), roce(400, size=4096), roce(400, link_layer=""), {"transport": "verbs"}]
)
def test_where_nothing_is_expected_nothing_is_held_against_it(parameters: dict[str, Scalar]) -> None:
    verdict = judged(write(1, parameters))
    assert (verdict.status, verdict.expected) == (Status.PASS, None)


def test_a_nic_with_itself_has_no_wire_in_between() -> None:
    verdict = judged(write(200, subject=Subject("node", "node1/mlx5_0")))
    assert (verdict.status, verdict.expected) == (Status.PASS, None)


def test_tcp_is_not_held_against_the_wire() -> None:
    """A CPU limits a stream well below 400 Gb/s."""
    told: dict[str, Scalar] = {"transport": "tcp", "mtu": 9000, "client_address": "10.0.0.1"}
    verdict = judged(write(40, roce() | told))
    assert (verdict.status, verdict.expected) == (Status.PASS, None)


def test_a_rate_that_is_surpassed_was_none() -> None:
    """A driver that tells 10 Gb/s of a port of 200."""
    verdict = judged(write(180, roce(10)))
    assert (verdict.status, verdict.expected) == (Status.PASS, None)


def test_a_small_mtu_is_named_as_the_cause_and_warned_of() -> None:
    verdict = judged(write(369, roce(mtu=1024)))
    assert verdict.status is Status.WARN
    assert detail(verdict).startswith("the MTU of 1024 is the cause")


def test_a_path_slow_for_its_small_mtu_is_not_excused_by_it() -> None:
    verdict = judged(write(300, roce(mtu=1024)))
    assert verdict.status is Status.FAIL
    assert "is the cause" not in detail(verdict)


def test_what_the_counters_say_explains_a_slow_path() -> None:
    verdict = judged(write(300, counters=CONGESTED))
    assert verdict.status is Status.FAIL
    assert "node2/mlx5_0: congestion in the fabric" in detail(verdict)
    assert "1.4 CNP/GiB" in detail(verdict), "49 in one second at 300 Gb/s, 34.9 GiB"


def test_congestion_of_a_fast_path_is_not_worth_a_word() -> None:
    verdict = judged(write(390, counters=CONGESTED))
    assert (verdict.status, verdict.detail) == (Status.PASS, None)


def test_errors_that_grew_are_a_warning_though_the_figure_is_fine() -> None:
    verdict = judged(write(390, counters=RETRIED))
    assert verdict.status is Status.WARN
    assert "node1/mlx5_0: sent again" in detail(verdict)
    assert "local_ack_timeout_err 8" in detail(verdict)


def test_errors_are_added_up_over_the_measurements_of_a_path() -> None:
    assert "local_ack_timeout_err 16" in detail(judged(write(390, counters=RETRIED), write(391, counters=RETRIED)))


def test_errors_warn_also_where_a_criterion_holds_and_never_soften_a_failure() -> None:
    own = config.parse_criteria('[criteria]\nverbs.bandwidth.min = "200 Gb/s"\n', "my.toml")
    assert judged(write(250, counters=RETRIED), criteria=own).status is Status.WARN
    assert judged(write(150, counters=RETRIED), criteria=own).status is Status.FAIL


def test_a_path_that_broke_tells_what_its_counters_saw() -> None:
    broken = write(
        0, samples=[], status="timeout", reason_code="timeout", reason=plain("no completion"), counters=RETRIED
    )
    verdict = judged(broken)
    assert verdict.status is Status.UNKNOWN
    assert "no completion; node1/mlx5_0: sent again, or given up" in detail(verdict)
