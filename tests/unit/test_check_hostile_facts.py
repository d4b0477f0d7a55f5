"""Whatever a node says, every item comes to a verdict in good time, and none takes it for a bug of ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import msgspec
import pytest

from cwai_bench.checks import ALWAYS, CHECKS, ConfigurableCheck, FactView
from cwai_bench.config import Criteria, Criterion, Quantity
from cwai_bench.judge import check_facts
from cwai_bench.judge.facts import _question
from cwai_bench.model import Facts, Reading, Status, Verdict

GARBAGE = {
    "empty": "",
    "blank": " \n\n",
    "nul": "\x00\x00",
    "words": "one two three four five six seven eight\n" * 3,
    "digits": "9" * 10_000,
    "negative": "-1\n",
    "zero": "0\n",
    "brace": "{",
    "list": "[]",
    "object": "{}",
    "null": "null",
    "html": "<script>alert(1)</script>\n",
    "format": "{0} {x!r} %s %n\n",
    "wide": "名" * 2000,
    "long line": "INFO: task " + "a b " * 200_000,
    "escape": "\x1b[31mred\x1b[0m\n",
}

ITEMS = Criteria(
    "all.toml",
    {
        c.info.id: Criterion(c.info.id, pattern=".*")
        if c.unit == "text"
        else Criterion(c.info.id, min=Quantity(0, c.unit, "0"))
        for c in CHECKS.values()
        if isinstance(c, ConfigurableCheck)
    },
)


def with_readings(facts: Facts, readings: dict[str, Reading]) -> Facts:
    return msgspec.structs.replace(facts, readings=readings)


def no_bug(verdicts: list[Verdict]) -> None:
    for verdict in verdicts:
        said = "" if verdict.detail is None else verdict.detail.en
        assert "a bug of" not in said, f"{verdict.check}: {said}"
        assert len(verdict.observed) <= 6000
        assert sum(len(e.text) for e in verdict.evidence) <= 8 * 4096
        msgspec.json.encode(verdict)


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_everywhere(garbage: str, good_facts: Facts) -> None:
    readings = {k: msgspec.structs.replace(r, text=garbage) for k, r in good_facts.readings.items()}
    started = time.monotonic()
    no_bug(check_facts([with_readings(good_facts, readings)], CHECKS, criteria=ITEMS, baseline="node1"))
    assert time.monotonic() - started < 10.0


def lookers(facts: Facts) -> Callable[[str], Iterable[str]]:
    """The items that look at a source of ``facts``, or would if there were something else: at what is read whatever is
    checked, all."""
    found: dict[str, list[str]] = {}
    for id in CHECKS:
        view = FactView(facts)
        question = _question(CHECKS[id], ITEMS)
        assert question is not None
        question(view)
        for asked in view.asked:
            found.setdefault(asked if isinstance(asked, str) else asked[0], []).append(id)
    return lambda key: CHECKS if key in {source.key for source in ALWAYS} else dict.fromkeys(found.get(key, []))


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_in_one_source_at_a_time(garbage: str, good_facts: Facts) -> None:
    """Items that never look at it say what they always say."""
    at = lookers(good_facts)
    for key, reading in good_facts.readings.items():
        readings = good_facts.readings | {key: msgspec.structs.replace(reading, text=garbage)}
        no_bug(check_facts([with_readings(good_facts, readings)], at(key), criteria=ITEMS))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_text_that_was_cut_short(share: float, good_facts: Facts) -> None:
    readings = {
        k: msgspec.structs.replace(r, text=r.text[: min(int(len(r.text) * share), max(len(r.text) - 3, 0))])
        for k, r in good_facts.readings.items()
    }
    verdicts = check_facts([with_readings(good_facts, readings)], CHECKS, criteria=ITEMS)
    no_bug(verdicts)
    answers = [v for v in verdicts if any(e.source.startswith("call:") for e in v.evidence)]
    assert not [v.check for v in answers if v.status is Status.PASS], "half an answer is none"


def test_what_was_too_large_to_be_read_whole_is_no_pass(good_facts: Facts) -> None:
    readings = {k: msgspec.structs.replace(r, truncated=True) for k, r in good_facts.readings.items()}
    verdicts = check_facts([with_readings(good_facts, readings)], CHECKS, criteria=ITEMS)
    assert {(v.status, v.reason_code) for v in verdicts} == {(Status.UNKNOWN, "parse")}


def test_long_values_stay_different_when_cut(good_facts: Facts) -> None:
    def with_cmdline(node: str, tail: str) -> Facts:
        reading = Reading("proc/cmdline", "ok", "a" * 5000 + tail)
        return msgspec.structs.replace(good_facts, node=node, readings=good_facts.readings | {"proc/cmdline": reading})

    (verdict,) = check_facts([with_cmdline("node1", "x"), with_cmdline("node2", "y")], ["same.cmdline"])
    assert sorted(g.nodes for g in verdict.groups) == [["node1"], ["node2"]]
    assert all(len(g.value) < 2100 for g in verdict.groups)


NUMBERS = [0, -1, 10**18, -(10**18), 1e300, -1e300]


@pytest.mark.parametrize("number", NUMBERS)
def test_absurd_numbers_in_answers(number: float, good_facts: Facts) -> None:
    def absurd(value: object) -> object:
        if isinstance(value, dict):
            return {k: absurd(v) for k, v in value.items()}
        if isinstance(value, list):
            return [absurd(v) for v in value]
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        return type(value)(number) if isinstance(value, float) or isinstance(number, int) else value

    readings = {
        k: r
        if not k.startswith("call:")
        else msgspec.structs.replace(r, text=msgspec.json.encode(absurd(msgspec.json.decode(r.text))).decode())
        for k, r in good_facts.readings.items()
    }
    no_bug(check_facts([with_readings(good_facts, readings)], CHECKS, criteria=ITEMS, baseline="node1"))
