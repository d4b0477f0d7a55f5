"""Units, node sets, and text that came from a node."""

from __future__ import annotations

import re
import unicodedata
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwai_bench.model import Action, ItemKind, MeasureStatus, RankState, ReasonCode, RunStatus, Severity, Status
from cwai_bench.render import labels, units
from cwai_bench.render.nodeset import fold, natural
from cwai_bench.render.untrusted import neutral, neutral_struct
from cwai_bench.text import Text

# ------------------------------------------------------------------------------------------------ units


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (148.6512, "148.7"),
        (0.52134, "0.5213"),
        (10443.2, "10443"),
        (0.0, "0"),
        (-2.5, "-2.500"),
        (1e-7, "0.000000100"),
        (float("nan"), "–"),
        (float("inf"), "–"),
    ],
)
def test_number(value: float, shown: str) -> None:
    assert units.number(value) == shown


def test_rates_and_times_are_in_the_units_of_the_trade() -> None:
    assert units.gigabits(1.25e9) == "10.00"
    assert units.gigabytes(148.7e9) == "148.7"
    assert units.microseconds(2.34e-6) == "2.340"
    assert units.short(25.0) == "25"
    assert units.short(100.0) == "100"
    assert units.short(0.001) == "0.001"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(8, "8 B"), (1023, "1023 B"), (1024, "1 KiB"), (65536, "64 KiB"), (3 << 29, "1.5 GiB"), (1 << 41, "2 TiB")],
)
def test_size(count: int, shown: str) -> None:
    assert units.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "00:00:00"), (59.6, "00:01:00"), (3725, "01:02:05"), (360000, "100:00:00"), (-3, "00:00:00")],
)
def test_hms(seconds: float, shown: str) -> None:
    assert units.hms(seconds) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0.42, "0.42 s"), (12.4, "12 s"), (119, "119 s"), (200, "00:03:20")])
def test_span(seconds: float, shown: str) -> None:
    assert units.span(seconds) == shown


@pytest.mark.parametrize(("east", "shown"), [(28800, "+08:00"), (0, "+00:00"), (-12600, "-03:30"), (20700, "+05:45")])
def test_offset(east: int, shown: str) -> None:
    assert units.offset(east) == shown


def test_a_moment_is_told_in_utc_and_on_the_wall_clock() -> None:
    assert units.utc(1767225599.9) == "2025-12-31 23:59:59 UTC"
    assert units.local(1767225599.9, 28800) == "2026-01-01 07:59:59 +08:00"
    assert units.clock(1767225599.9876) == "23:59:59.987"


# -------------------------------------------------------------------------------------------- node sets


@pytest.mark.parametrize(
    ("nodes", "folded"),
    [
        (["node03", "node17"], "node[03,17]"),
        (["node9", "node11", "node10"], "node[9-11]"),
        (["node1"], "node1"),
        (["node1", "node1"], "node1"),
        (["10.0.0.1", "10.0.0.2"], "10.0.0.[1-2]"),
        ([], ""),
        # What ClusterShell would read as a group, a range or a wildcard stays a name.
        (["@all", "node[1-9]", "a,b", "*", "n%s"], "@all,node[1-9],a,b,*,n%s"),
        (["node2", "x y", "node1"], "node[1-2],x y"),
    ],
)
def test_fold(nodes: list[str], folded: str) -> None:
    assert fold(nodes) == folded


@given(st.lists(st.text(max_size=20), max_size=8))
def test_fold_takes_any_name(nodes: list[str]) -> None:
    folded = fold(nodes)
    for name in nodes:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            assert name in folded


def test_nodes_sort_as_people_count() -> None:
    assert sorted(["node10", "node9", "a", "node9b"], key=natural) == ["a", "node9", "node9b", "node10"]


# ---------------------------------------------------------------------------------------- untrusted text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("node1", "node1"),
        ("节点　一", "节点　一"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("half\ud800", "half\\ud800"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("two\nlines\ttab\r", "two\\nlines\\ttab\\r"),
        ("no\u00a0break", "no break"),
        ("\uffff", "\\uffff"),
    ],
)
def test_neutral(text: str, shown: str) -> None:
    assert neutral(text) == shown


def test_evidence_keeps_its_lines_and_nothing_else() -> None:
    assert neutral("a\n\tb\r\x00", lines=True) == "a\n\tb\\r\\x00"


def test_neutral_text_is_bounded() -> None:
    assert neutral("x" * 5000, limit=100) == "x" * 100 + "…"
    assert len(neutral("\x1b" * 5000, limit=100)) <= 101


ILLEGAL_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@given(st.text(st.characters(), max_size=200))
def test_whatever_comes_in_nothing_active_comes_out(text: str) -> None:
    out = neutral(text, lines=True)
    assert not ILLEGAL_IN_XML.search(out)
    assert all(c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") for c in out)
    assert neutral(out, lines=True) == out
    out.encode("utf-8")


def test_a_value_is_made_neutral_through_and_through() -> None:
    assert neutral_struct(Text("a\x1b\nb", "甲\u202e")) == Text("a\\x1b\nb", "甲\\u202e")


# ----------------------------------------------------------------------------------------------- labels


def test_there_is_a_word_for_everything_that_a_report_may_say() -> None:
    assert set(labels.REASON) == set(get_args(ReasonCode)) - {""}
    assert set(labels.RANK_STATE) == set(get_args(RankState))
    assert set(labels.RUN_STATUS) == set(get_args(RunStatus))
    assert set(labels.MEASURE_STATUS) == set(get_args(MeasureStatus))
    for of_status in (labels.STATUS, labels.STATUS_MEANING, labels.BADGE, labels.GATE):
        assert set(of_status) == set(Status)
    assert set(labels.KIND) == set(ItemKind)
    assert set(labels.ACTION) == set(Action)
    assert set(labels.SEVERITY) == set(Severity)


def test_every_word_is_in_both_languages() -> None:
    words = {name: text for name, text in vars(labels).items() if isinstance(text, Text)}
    assert len(words) > 100
    alike = {name for name, text in words.items() if text.en == text.zh}
    assert alike == {"DASH", "GBPS", "US", "GBYTES"}
    assert not [name for name in set(words) - alike if not re.search("[\u4e00-\u9fff]|^\\{", words[name].zh)]


def test_one_is_not_many() -> None:
    assert labels.counted(1, *labels.NODE_COUNT).en == "1 node"
    assert labels.counted(2, *labels.NODE_COUNT).en == "2 nodes"
