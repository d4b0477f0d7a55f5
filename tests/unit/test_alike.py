"""A check is asked once for each set of answers that it looks at, and says the same as if it were asked each time."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from cwai_bench.checks import CHECKS, FactView, NotKnown
from cwai_bench.judge import check_facts
from cwai_bench.judge.alike import Alike
from cwai_bench.judge.found import narrowed
from cwai_bench.model import Facts, Reading, Verdict


def node(name: str, **texts: str) -> Facts:
    return Facts(name, 0.0, True, True, {k: Reading(k, "ok", v, duration=hash(name) % 7) for k, v in texts.items()})


class Counted:
    """Reads ``a``, and ``b`` too where ``a`` says so."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, facts: FactView) -> str:
        self.times += 1
        return facts.text("a") + (facts.text("b") if facts.text("a") == "b" else "")


def test_like_facts_are_looked_at_once() -> None:
    nodes = [node("n1", a="x", b="1"), node("n2", a="x", b="2"), node("n3", a="b", b="1"), node("n4", a="b", b="2")]
    nodes += [node("n5", a="b", b="1"), node("n6", a="x")]
    alike, look = Alike(nodes), Counted()
    (answers,) = alike.ask([look])
    assert {n: a.said for a in answers for n in alike.named(a.at)} == {
        "n1": "x", "n2": "x", "n3": "b1", "n4": "b2", "n5": "b1", "n6": "x"
    }  # fmt: skip
    assert look.times == 3


def test_what_went_wrong_is_content_too() -> None:
    good, denied = node("n1", a="x"), node("n2")
    denied = msgspec.structs.replace(denied, readings={"a": Reading("a", "denied")})
    alike = Alike([good, denied])

    def look(view: FactView) -> str:
        try:
            return view.text("a")
        except NotKnown as e:
            return e.reason_code

    (answers,) = alike.ask([look])
    assert [a.said for a in answers] == ["x", "permission"]


def test_who_asks_for_the_node_is_asked_for_every_node() -> None:
    nodes = [node("n1", a="x"), node("n2", a="x")]
    alike = Alike(nodes)
    (answers,) = alike.ask([lambda v: f"{v.node}{v.text('a')}"])
    assert [(a.said, a.at) for a in answers] == [("n1x", [0]), ("n2x", [1])]


def test_all_questions_are_asked_of_one_node_before_the_next() -> None:
    asked: list[tuple[str, str]] = []

    def question(source: str) -> Callable[[FactView], None]:
        return lambda v: asked.append((v.text(source), source))

    Alike([node("n1", a="1", b="1"), node("n2", a="2", b="1")]).ask([question("a"), question("b")])
    assert asked == [("1", "a"), ("1", "b"), ("2", "a")]


def said_of(node: str, verdicts: list[Verdict]) -> list[Verdict]:
    """What is said of ``node``, as if it were alone, without what lists the others."""
    return [msgspec.structs.replace(narrowed(v, [node]), groups=[]) for v in verdicts if node in v.nodes]


def test_verdicts_of_many_are_those_of_each_alone(good_facts: Facts) -> None:
    other = msgspec.structs.replace(good_facts, node="node2")
    ill = dict(good_facts.readings)
    ill["proc/loadavg"] = msgspec.structs.replace(ill["proc/loadavg"], text="900.0 900.0 900.0 1/2 3\n")
    ill["call:limits"] = Reading("call:limits", "timeout", detail="no answer in 3 s")
    third = msgspec.structs.replace(good_facts, node="node3", readings=ill)
    together = check_facts([good_facts, other, third], CHECKS, baseline="node1")
    for facts in (other, third):
        alone = check_facts([good_facts, facts], CHECKS, baseline="node1")
        assert said_of(facts.node, together) == said_of(facts.node, alone)
    statuses = {(n, v.check): v.status for v in together for n in v.nodes}
    assert statuses["node2", "cpu.load"] != statuses["node3", "cpu.load"]
    assert statuses["node3", "limits.open_files"] == "UNKNOWN"
