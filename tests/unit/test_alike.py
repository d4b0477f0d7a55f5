"""A check is asked once for each set of answers that it looks at, and says the same as if it were asked each time."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cwai_bench.checks import CHECKS, ConsistencyCheck, FactView, NodeCheck, NotKnown
from cwai_bench.judge import check_facts
from cwai_bench.judge.alike import Alike
from cwai_bench.judge.facts import _question
from cwai_bench.judge.found import evidence, narrowed
from cwai_bench.model import Facts, Reading, Status, Verdict
from cwai_bench.readers import Unreadable
from cwai_bench.sources import Host, SteadyHost
from tests.unit.conftest import Planted
from tests.unit.test_check_hostile_facts import ITEMS


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


def test_what_a_shape_leaves_out_is_no_difference() -> None:
    def host(**changes: object) -> str:
        steady = SteadyHost("5.15", "#1", "x86_64", 4096, "CST +0800", "3.11", "glibc 2.35")
        told = {"hostname": "n", "boot": 1.0, "taken": 2.0} | changes
        return msgspec.json.encode(msgspec.to_builtins(steady) | told).decode()

    texts = [host(), host(hostname="m", boot=0.0), host(hostname="m", boot=0.0), host(machine="aarch64")]
    alike = Alike([node(f"n{i}", **{"call:host": text}) for i, text in enumerate(texts)])
    machines, names = alike.ask([lambda v: v.call("host", SteadyHost).machine, lambda v: v.call("host", Host).hostname])
    assert [(a.said, list(a.at)) for a in machines] == [("x86_64", [0, 1, 2]), ("aarch64", [3])]
    assert [(a.said, list(a.at)) for a in names] == [("n", [0]), ("m", [1, 2]), ("n", [3])]


def test_what_is_made_of_an_answer_is_made_once_for_that_answer() -> None:
    def release(host: SteadyHost) -> list[str]:
        made.append(host.release)
        return [host.release]

    made: list[str] = []
    text = msgspec.json.encode(SteadyHost("5.15", "#1", "x86_64", 4096, "CST +0800", "3.11", "glibc 2.35")).decode()
    first, same = (FactView(node(name, **{"call:host": text})) for name in ("n1", "n2"))
    other = FactView(node("n3", **{"call:host": text.replace("5.15", "6.8")}))
    assert first.made("host", SteadyHost, release) is same.made("host", SteadyHost, release)
    assert other.made("host", SteadyHost, release) == ["6.8"]
    assert made == ["5.15", "6.8"]
    assert first.asked == {("call:host", SteadyHost): None}
    with pytest.raises(NotKnown, match="cannot be read"):
        FactView(node("n4", **{"call:host": "{}"})).made("host", SteadyHost, release)


def test_of_a_text_only_the_line_asked_for_counts() -> None:
    texts = [
        "total: 1\nfree: 1\n",
        "total: 1\nfree: 2\n",
        "total: 2\nfree: 1\n",
        "free: 1\n",
        "total: 1",
        "xtotal: 1\n",
    ]
    alike = Alike([node(f"n{i}", a=text) for i, text in enumerate(texts)])
    (answers,) = alike.ask([lambda v: (v.maybe_line("a", "total:"), [e.text for e in v.evidence(Status.PASS)])])
    assert [(a.said, list(a.at)) for a in answers] == [
        (("1", ["total: 1"]), [0, 1, 4]), (("2", ["total: 2"]), [2]), ((None, []), [3, 5])
    ]  # fmt: skip


def test_nodes_of_which_the_same_is_made_are_asked_once() -> None:
    def parity(text: str) -> int:
        made.append(text)
        if not text.isdecimal():
            raise Unreadable("no number")
        return int(text) % 2

    def look(view: FactView) -> str:
        looked.append(1)
        try:
            return str(view.only_said(parity, "count"))
        except NotKnown as e:
            return e.reason.en

    made: list[str] = []
    looked: list[int] = []
    texts = ["1", "2", "3", "5", "x", "x", "y"]
    readings = [Reading("$ count", "ok", text) for text in texts] + [Reading("$ count", "missing")]
    alike = Alike([Facts(f"n{i}", 0.0, True, True, {r.source: r}) for i, r in enumerate(readings)])
    answers, again = alike.ask([look, look])
    assert answers == again
    assert [(a.said, list(a.at)) for a in answers] == [
        ("1", [0, 2, 3]),
        ("0", [1]),
        ("count cannot be read: no number", [4, 5]),
        ("count cannot be read: no number", [6]),
        ("the command count is not installed", [7]),
    ]
    assert len(looked) == 2 * len(answers)
    assert [made.count(text) for text in ("1", "2", "3", "5")] == [1, 1, 1, 1]


def test_what_has_gathered_in_counters_makes_no_difference(good_facts: Facts) -> None:
    """Nor how long exactly they were watched: only that one of them grows."""

    def rdma(change: Callable[[dict[str, Any]], None], **top: object) -> Facts:
        answer = msgspec.json.decode(good_facts.readings["call:rdma"].text) | top
        change(answer["devices"][0]["ports"][0])
        reading = Reading("call:rdma", "ok", msgspec.json.encode(answer).decode())
        return msgspec.structs.replace(good_facts, readings=good_facts.readings | {"call:rdma": reading})

    def busy(port: dict[str, Any]) -> None:
        port["before"]["symbol_error"] = port["after"]["symbol_error"] = 7
        port["after"]["port_xmit_data"] += 12345

    def ill(port: dict[str, Any]) -> None:
        port["after"]["symbol_error"] = port["before"]["symbol_error"] + 3

    looked = msgspec.json.decode(good_facts.readings["call:rdma"].text)["looked"]
    facts = [good_facts, rdma(busy, looked=looked + 0.003), rdma(ill)]
    alike = Alike([msgspec.structs.replace(f, node=f"n{i}") for i, f in enumerate(facts)])
    check = CHECKS["rdma.errors"]
    assert isinstance(check, NodeCheck)
    (answers,) = alike.ask([check.judge])
    assert [(a.said.status, list(a.at)) for a in answers] == [("PASS", [0, 1]), ("FAIL", [2])]
    assert answers[1].said.observed.endswith("symbol_error +3")
    (shown,) = [e.text for e in evidence(check.judge, alike, 2, Status.FAIL) if e.source == "call:rdma"]
    assert "symbol_error +3" in shown


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


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_several_processes_say_what_one_says(processes: int) -> None:
    alike, look = Alike([node(f"n{i}", a="b", b=str(i % 2)) for i in range(5)], ["n0", "n9"]), Counted()
    (together,) = alike._ask_apart([look], processes)
    (alone,) = Alike([node(f"n{i}", a="b", b=str(i % 2)) for i in range(5)], ["n0", "n9"]).ask([look])
    said = [{n: a.said for a in answers for n in alike.named(a.at)} for answers in (together, alone)]
    assert said[0] == said[1] == {"n0": "b0", "n1": "b1", "n2": "b0", "n3": "b1", "n4": "b0"}


def test_a_process_that_dies_while_it_judges_is_no_answer() -> None:
    alike = Alike([node("n1", a="x"), node("n2", a="y")])

    def look(view: FactView) -> str:
        if view.text("a") == "y":
            os._exit(9)
        return "x"

    with pytest.raises(RuntimeError, match="ended with 9"):
        alike._ask_apart([look], 2)


def test_what_proves_the_one_value_of_a_group_is_said_of_where_it_was_read() -> None:
    quoted, bare = 'PRETTY_NAME="Linux"', "PRETTY_NAME=Linux"
    facts = [node(name, **{"etc/os-release": text}) for name, text in (("n1", quoted), ("n2", bare), ("n3", quoted))]
    (verdict,) = check_facts(facts, ["same.os"], nodes=["n1", "n2", "n3", "silent"])
    assert verdict.observed == "Linux"
    assert {(e.text, *e.nodes) for e in verdict.evidence} == {(quoted, "n1", "n3"), (bare, "n2")}
    (verdict,) = check_facts(facts[:1], ["same.os"])
    assert [(e.text, e.nodes) for e in verdict.evidence] == [(quoted, [])]


def changed_in_one_source(facts: Facts) -> Iterator[Facts]:
    """``facts`` of other nodes, each of which differs in one reading, in one of several ways."""
    for number, (source, reading) in enumerate(sorted(facts.readings.items())):
        counted = re.sub(r"\d+", lambda digits: str(int(digits[0]) + 1), reading.text, count=1 + number // 5 % 4)
        changes: list[dict[str, object] | None] = [
            {"text": counted},
            {"status": "denied", "text": "", "detail": "no"},
            {"truncated": True},
            {"exit_code": 9, "detail": "ill"},
            None,  # it was not read at all
        ]
        change = changes[number % 5]
        readings = {key: r for key, r in facts.readings.items() if key != source}
        if change is not None:
            readings[source] = msgspec.structs.replace(reading, **change)
        yield msgspec.structs.replace(facts, node=f"n{number}", readings=readings)


@pytest.mark.parametrize("home", ["good", "ascend_910b"])
def test_no_item_says_of_a_node_what_it_would_not_say_of_it_alone(home: str, tmp_path: Path) -> None:
    """Nor proves it by what was read on another node that reads differently."""
    good = Planted(tmp_path / "node", home).facts()
    alike = Alike([good, *changed_in_one_source(good)])
    questions = {id: question for id in CHECKS if (question := _question(CHECKS[id], ITEMS)) is not None}
    assert len(questions) == len(CHECKS)
    for id, answers in zip(questions, alike.ask(list(questions.values())), strict=True):
        check = CHECKS[id]
        raw: Callable[[FactView], object]
        raw = (
            check.judge
            if isinstance(check, NodeCheck)
            else check.value
            if isinstance(check, ConsistencyCheck)
            else check.values
        )
        assert sorted(i for a in answers for i in a.at) == alike.present, id
        for answer in answers:
            shown = evidence(raw, alike, answer.at[0], Status.PASS)
            for i in answer.at:
                facts = alike.facts[i]
                assert facts is not None
                assert questions[id](FactView(facts)) == answer.said, (id, facts.node)
                assert evidence(raw, alike, i, Status.PASS) == shown, (id, facts.node)
