"""A check is asked once for each set of answers that it looks at, and says the same as if it were asked each time."""

from __future__ import annotations

import msgspec
import pytest

from cwai_bench.checks import CHECKS, FactView, NotKnown
from cwai_bench.judge import check_facts
from cwai_bench.judge.alike import Alike
from cwai_bench.model import Facts, Reading


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
    assert [alike.ask("q", f, look) for f in nodes] == ["x", "x", "b1", "b2", "b1", "x"]
    assert look.times == 3


def test_what_went_wrong_is_content_too() -> None:
    good, denied = node("n1", a="x"), node("n2")
    denied = msgspec.structs.replace(denied, readings={"a": Reading("a", "denied")})
    alike = Alike([good, denied])
    assert alike.ask("q", good, lambda v: v.text("a")) == "x"
    with pytest.raises(NotKnown):
        alike.ask("q", denied, lambda v: v.text("a"))


def test_who_asks_for_the_node_is_asked_for_every_node() -> None:
    nodes = [node("n1", a="x"), node("n2", a="x")]
    alike = Alike(nodes)
    assert [alike.ask("q", f, lambda v: f"{v.node}{v.text('a')}") for f in nodes] == ["n1x", "n2x"]


def test_verdicts_of_many_are_those_of_each_alone(good_facts: Facts) -> None:
    other = msgspec.structs.replace(good_facts, node="node2")
    ill = dict(good_facts.readings)
    ill["proc/loadavg"] = msgspec.structs.replace(ill["proc/loadavg"], text="900.0 900.0 900.0 1/2 3\n")
    ill["call:limits"] = Reading("call:limits", "timeout", detail="no answer in 3 s")
    third = msgspec.structs.replace(good_facts, node="node3", readings=ill)
    together = check_facts([good_facts, other, third], CHECKS, baseline="node1")
    for facts in (other, third):
        alone = check_facts([good_facts, facts], CHECKS, baseline="node1")
        assert [v for v in together if v.node == facts.node and v.kind != "consistency"] == [
            v for v in alone if v.node == facts.node and v.kind != "consistency"
        ]
    statuses = {(v.node, v.check): v.status for v in together}
    assert statuses["node2", "cpu.load"] != statuses["node3", "cpu.load"]
    assert statuses["node3", "limits.open_files"] == "UNKNOWN"
