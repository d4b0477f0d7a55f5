"""Transfers over several paths as a person sees them: tables, pictures with their marks, and what made a path fail."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import msgspec

from cwai_bench import render
from cwai_bench.model import Report
from cwai_bench.render import chart, multipath
from cwai_bench.render.table import Section
from cwai_bench.text import Text, plain
from tests.golden.sample_reports import multipath as sample


def words(value: str | Text) -> str:
    return value if isinstance(value, str) else value.en


def shown(report: Report) -> Section:
    found = multipath.section(report)
    assert found is not None
    return found


def rows(section: Section, title: str) -> list[list[str]]:
    (table,) = (t for t in section.tables if t.title is not None and t.title.en.startswith(title))
    return [[words(cell.value) for cell in row.cells] for row in table.rows]


def test_a_report_without_several_paths_has_no_such_section() -> None:
    assert multipath.section(msgspec.structs.replace(sample(), measurements=[], transfers=[])) is None


def test_ours_comes_first_with_its_share_of_the_bound() -> None:
    section = shown(sample())
    policies = rows(section, "All paths at once")
    first = next(row for row in policies if row[1] == "as it is")
    assert first[2].startswith("pull")
    assert re.fullmatch(r"9\d\.\d%", first[8])
    headline = section.headlines[0]
    assert headline[0].en == "node01→node02, as it is"
    assert first[8] in headline[1].en
    assert len(rows(section, "Each path alone")) == 8


def test_marks_of_a_picture_are_told_in_words() -> None:
    section = shown(sample())
    cut = [t for t in section.tables if t.title is not None and ", cut, pull" in t.title.en]
    told = [[words(cell.value) for cell in row.cells] for row in cut[0].rows]
    assert [row[0] for row in told] == ["1", "2", "3"]
    assert [row[3].split(" (")[0] for row in told] == ["planted: cut", "suspect", "failed"]
    assert "Connection timed out" in told[2][3]
    figure = next(f for f in section.figures if "cut, pull" in f.caption.en)
    drawn = ElementTree.fromstring(figure.svg)
    assert drawn.attrib["aria-hidden"] == "true"
    assert figure.svg.count('class="cross"') == 3
    assert figure.svg.count('class="planted"') == 1


def test_what_was_named_stands_with_its_evidence_and_what_to_do_without() -> None:
    found = rows(shown(sample()), "What made paths fail")
    assert [row[2] for row in found] == ["NIC node02/eth1", "path node01/eth0 ↔ node02/eth0 (rehearsed)"]
    assert "node02/eth1" in found[0][5]
    assert "bad: " in found[0][4]
    assert "fine: " in found[0][4]
    assert all(re.fullmatch(r"\d+%", row[3]) for row in found)


def test_a_transfer_that_never_ended_says_why() -> None:
    report = sample()
    ended = msgspec.structs.replace(report.transfers[0], seconds=None, ended=plain("no path is left"))
    section = shown(msgspec.structs.replace(report, transfers=[ended]))
    assert "never complete: no path is left" in section.figures[0].caption.en


def test_hostile_names_stay_text() -> None:
    report = sample()
    evil = "<script>alert(1)</script>"
    path = msgspec.structs.replace(report.transfers[0].paths[0], source=f"n/{evil}")
    transfer = msgspec.structs.replace(report.transfers[0], paths=[path, *report.transfers[0].paths[1:]])
    page = render.render(msgspec.structs.replace(report, transfers=[transfer]), "html", "en")
    assert evil not in page


def test_flows_scale_to_the_fastest_and_stay_within_the_picture() -> None:
    lane = chart.Flow("a", [10.0, 0.0, 5.0], [(0.5, 1, True), (9.0, 2, False)], [(0.25, 1e6)])
    drawn = chart.flows([lane, replace(lane, name="b<", rates=[])], 1.0, plain("s"), str, str)
    width = float(ElementTree.fromstring(drawn).attrib["width"])
    assert "b&lt;" in drawn
    xs = [float(x) for x in re.findall(r' (?:x|cx|x1|x2)="([\d.]+)"', drawn)]
    assert max(xs) <= width
    assert chart.flows([replace(lane, rates=[])], 1.0, plain("s"), str, str) == ""


def test_both_languages_are_there() -> None:
    section = shown(sample())
    texts = [section.title, *(f.caption for f in section.figures), *(t.title for t in section.tables if t.title)]
    assert all(re.search(r"[\u4e00-\u9fff]", text.zh) for text in texts)
    cells = [cell.value for table in section.tables for row in table.rows for cell in row.cells]
    assert all(cell.zh for cell in cells if isinstance(cell, Text))


def test_rdma_says_so_and_a_connection_is_told_by_its_number() -> None:
    report = sample()
    ms = [msgspec.structs.replace(m, parameters={**m.parameters, "transport": "verbs"}) for m in report.measurements]
    transfers = [
        msgspec.structs.replace(
            t,
            paths=[msgspec.structs.replace(path, connections=8) for path in t.paths],
            changes=[msgspec.structs.replace(change, connection=4) for change in t.changes],
        )
        for t in report.transfers
    ]
    section = shown(msgspec.structs.replace(report, measurements=ms, transfers=transfers))
    assert section.headlines[0][0].en == "node01→node02 (RDMA), as it is"
    assert {row[0] for row in rows(section, "All paths at once")} == {"node01→node02 (RDMA)"}
    (told,) = [t for t in section.tables if t.title is not None and ", cut, pull" in t.title.en]
    assert [words(row.cells[3].value).split(" (")[0] for row in told.rows] == [
        "planted: cut",
        "connection 5 suspect",
        "connection 5 failed",
    ]
