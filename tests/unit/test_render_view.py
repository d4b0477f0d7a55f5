"""What the view makes of a report, and what each format makes of what is hostile in it."""

from __future__ import annotations

import base64
import csv
import hashlib
import html.parser
import io
import re
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import msgspec
import pytest

from cwai_bench import render
from cwai_bench.model import (
    Action,
    CheckInfo,
    Evidence,
    Gate,
    ItemKind,
    LeftOut,
    NodeRecord,
    Plan,
    RankEvent,
    ReasonCode,
    Report,
    Severity,
    Status,
    Subject,
    ValueGroup,
    Verdict,
)
from cwai_bench.render.csv import HEADER, guarded
from cwai_bench.render.markdown import code, escaped
from cwai_bench.render.view import Item, view
from cwai_bench.text import LANGS, Lang, Text, plain

SAMPLES = Path(__file__).resolve().parents[2] / "reports" / "samples"
HOSTILE = '</script><script>alert(1)</script><img src="http://x.example/a" onerror=a()>\x1b]0;x\x07\u202e'


def info(id: str, kind: ItemKind = ItemKind.NODE, required: bool = True) -> CheckInfo:
    def words(what: str) -> Text:
        return Text(f"{what} of {id}", f"{id} 的{what}")

    return CheckInfo(
        id,
        kind,
        "host",
        title=words("title"),
        method=words("method"),
        criterion=words("criterion"),
        suggestion=words("suggestion"),
        severity=Severity.MAJOR,
        action=Action.FIX_CONFIG,
        needs=[],
        required=required,
    )


def verdict(check: str, node: str, status: Status, observed: str = "", **more: Any) -> Verdict:
    plainest = Verdict(check, ItemKind.NODE, Subject("node", node), [node], status, observed)
    return msgspec.structs.replace(plainest, **more)


def report(checks: list[CheckInfo], verdicts: list[Verdict], nodes: int = 3, **changes: Any) -> Report:
    made = Report(
        run_id="20260131T000000Z-run-aaaaaa",
        run_type="run",
        status="complete",
        command=["cwai-bench", "run"],
        version="0.1.0",
        started=0.0,
        finished=61.0,
        utc_offset=3600,
        world_size=nodes,
        nodes=[NodeRecord(f"node{i}", [i - 1], True, True) for i in range(1, nodes + 1)],
        baseline=None,
        environment={},
        settings={},
        plan=Plan([], [], [], 1.0),
        checks=checks,
        verdicts=verdicts,
        measurements=[],
        events=[],
        counts={},
        gate=Gate(Status.FAIL, 1, [plain("because of a")], ["node1"]),
        notes=[],
    )
    return msgspec.structs.replace(made, **changes)


def items(made: Report) -> dict[str, Item]:
    return {item.id: item for item in view(made).items}


# ------------------------------------------------------------------------------------------------- view


def test_an_item_is_as_bad_as_its_worst_verdict_and_the_worst_item_comes_first() -> None:
    order = [Status.SKIP, Status.NA, Status.PASS, Status.WARN, Status.UNKNOWN, Status.FAIL]
    verdicts = [verdict(f"a{i}", f"node{j}", status) for i in range(6) for j, status in enumerate(order[: i + 1])]
    found = view(report([info(f"a{i}") for i in range(6)], verdicts))
    assert [item.status for item in found.items] == [
        Status.FAIL, Status.UNKNOWN, Status.WARN, Status.PASS, Status.NA, Status.SKIP,
    ]  # fmt: skip
    assert [item.attention for item in found.items] == [True, True, True, False, False, False]


def test_items_passed_says_what_the_others_are() -> None:
    checks = [info(id) for id in "abcde"]
    verdicts = [
        verdict(id, "node1", s)
        for id, s in zip("abcd", (Status.PASS, Status.PASS, Status.FAIL, Status.SKIP), strict=True)
    ]
    found = view(report(checks, verdicts))
    assert (found.passed, found.items_applying, found.items_total) == (2, 4, 5)
    assert found.passed_note == Text("2/4 (1 failed, 1 unknown); 1 skipped", "2/4（1 项不通过，1 项未知）；1 项跳过")
    assert sum(tally.count for tally in found.tallies) == found.items_total
    assert [(p.start, p.count) for p in found.bar] == [(0, 2), (2, 1), (3, 1), (4, 1)]


@pytest.mark.parametrize(
    ("status", "actions", "shown"),
    [
        (Status.FAIL, [Action.RESET, Action.ISOLATE, Action.NONE], "take the node out of use"),
        (Status.UNKNOWN, [Action.NONE], "–"),
        (Status.PASS, [Action.NONE], "nothing to do"),
    ],
)
def test_the_action_of_an_item_is_the_most_drastic_one(status: Status, actions: list[Action], shown: str) -> None:
    verdicts = [verdict("a", f"node{i}", status, action=action) for i, action in enumerate(actions)]
    assert items(report([info("a")], verdicts))["a"].action.en == shown


@pytest.mark.parametrize(
    ("status", "observed", "detail", "brief"),
    [
        (Status.FAIL, "3", "a detail", "3; expected: 4"),
        (Status.WARN, "", "a detail", "a detail"),
        (Status.UNKNOWN, "3", "a detail", "a detail"),
        (Status.UNKNOWN, "3", None, "timed out"),
        (Status.SKIP, "", None, "timed out"),
        (Status.PASS, "4", "a detail", "4"),
        (Status.NA, "4", None, "4"),
    ],
)
def test_an_item_is_told_in_a_line(status: Status, observed: str, detail: str | None, brief: str) -> None:
    found = verdict(
        "a",
        "node1",
        status,
        observed,
        detail=None if detail is None else plain(detail),
        expected=plain("4"),
        reason_code="timeout",
    )
    assert items(report([info("a")], [found]))["a"].brief.en == brief


def test_an_item_without_a_verdict_is_unknown() -> None:
    assert items(report([info("a")], []))["a"].status is Status.UNKNOWN


def test_a_verdict_of_an_item_that_the_report_does_not_describe_is_shown() -> None:
    assert items(report([], [verdict("new.item", "node1", Status.FAIL)]))["new.item"].status is Status.FAIL


def test_nodes_that_came_out_alike_are_one_result_with_one_piece_of_evidence() -> None:
    same = [Evidence("proc/x", "1")]
    verdicts = [verdict("a", f"node{i}", Status.PASS, "1", evidence=same) for i in (1, 2, 10)]
    verdicts.append(verdict("a", "node3", Status.FAIL, "2", evidence=[Evidence("proc/x", "2")]))
    found = items(report([info("a")], verdicts, nodes=4))["a"]
    assert [(r.status, r.where.en, r.count, r.observed) for r in found.results] == [
        (Status.FAIL, "node3", 1, "2"),
        (Status.PASS, "node[1-2,10]", 3, "1"),
    ]
    assert [[(p.subjects, p.text) for p in r.proofs] for r in found.results] == [
        [("node3", "2")],
        [("node[1-2,10]", "1")],
    ]


def test_many_values_that_passed_are_one_result_and_failures_never_are() -> None:
    verdicts = [verdict("a", f"node{i}", Status.PASS, f"{i} s") for i in range(1, 11)]
    verdicts += [verdict("a", f"node{i}", Status.FAIL, f"{i} s") for i in range(11, 18)]
    found = items(report([info("a")], verdicts, nodes=17))["a"]
    assert [(r.status, r.where.en, r.observed) for r in found.results] == [
        *((Status.FAIL, f"node{i}", f"{i} s") for i in range(11, 18)),
        (Status.PASS, "node[1-10]", "1 s … 10 s"),
    ]


def test_results_beyond_what_is_shown_are_counted() -> None:
    found = items(report([info("a")], [verdict("a", f"node{i}", Status.FAIL, str(i)) for i in range(230)]))["a"]
    assert len(found.results) == 200
    assert found.results_note is not None
    assert found.results_note.en.startswith("30 more")


@pytest.mark.parametrize(
    ("kind", "baseline", "reason_code", "required"),
    [
        (ItemKind.NODE, None, "", True),
        (ItemKind.CONSISTENCY, None, "no_baseline", False),
        (ItemKind.CONSISTENCY, "node1", "", True),
        (ItemKind.CONFIGURABLE, None, "no_criterion", False),
        (ItemKind.CONFIGURABLE, None, "", True),
    ],
)
def test_an_item_is_required_as_the_gate_has_it(
    kind: ItemKind, baseline: str | None, reason_code: ReasonCode, required: bool
) -> None:
    found = verdict("a", "node1", Status.FAIL, kind=kind, reason_code=reason_code)
    made = report([info("a", kind, required=kind is ItemKind.NODE)], [found], baseline=baseline)
    assert items(made)["a"].required is required
    assert ("(not required)" in render.summary(made, "en")) is not required


def test_evidence_beyond_what_is_shown_is_counted() -> None:
    verdicts = [verdict("a", f"node{i}", Status.PASS, evidence=[Evidence("s", str(i))]) for i in range(7)]
    (result,) = items(report([info("a")], verdicts))["a"].results
    assert [p.text for p in result.proofs] == ["0", "1", "2", "3"]
    assert result.proofs_note is not None
    assert result.proofs_note.en.startswith("3 more")


@pytest.mark.parametrize(
    ("subjects", "where"),
    [
        ([Subject("node", f"node{i}") for i in (1, 2, 3)], "all 3 nodes"),
        ([Subject("group", "all")], "all 3 nodes"),
        ([Subject("node", "node1"), Subject("node", "node3")], "node[1,3]"),
        ([Subject("nic", "node1/eth0"), Subject("nic", "node2/eth0"), Subject("nic", "node2/eth1")],
         "node[1-2]/eth0,node2/eth1"),
        ([Subject("rank", "node2/rank1")], "node2/rank1"),
        ([Subject("rank", f"node{i // 2}/rank{i}") for i in (2, 3)], "node1/rank[2-3]"),
        ([Subject("rank", f"node{i}/rank{i}") for i in range(3)], "all 3 ranks"),
        ([Subject("link", "node2→node1"), Subject("link", "node1→node2")], "node1→node2,node2→node1"),
    ],
)  # fmt: skip
def test_where(subjects: list[Subject], where: str) -> None:
    verdicts = [verdict("a", s.id, Status.PASS, subject=s) for s in subjects]
    assert items(report([info("a")], verdicts))["a"].where.en == where


@pytest.mark.parametrize(("baseline", "shown"), [("node1", "yes: node1"), (None, "no")])
def test_a_consistency_item_says_whether_a_baseline_was_set(baseline: str | None, shown: str) -> None:
    groups = [ValueGroup("x", ["node3"]), ValueGroup("y", ["node2", "node1"], is_baseline=baseline is not None)]
    found = verdict("c", "node1", Status.NA, kind=ItemKind.CONSISTENCY, groups=groups)
    made = items(report([info("c", ItemKind.CONSISTENCY), info("n")], [found], baseline=baseline))
    assert made["c"].baseline.en == shown
    assert made["n"].baseline.en == "–"
    assert [(g.value, g.nodes, g.count) for g in made["c"].groups] == [("y", "node[1-2]", 2), ("x", "node3", 1)]


def test_a_run_that_is_not_whole_says_so_first() -> None:
    made = view(report([], [], status="partial", notes=[plain("a note")]))
    assert [n.en for n in made.notices][1:] == ["a note"]
    assert "not complete" in made.notices[0].en
    assert view(report([], [])).notices == []


def test_nodes_done_counts_only_those_whose_record_is_whole() -> None:
    nodes = [NodeRecord("n1", [0], True, True), NodeRecord("n2", [1], True, False), NodeRecord("n3", [2], False, False)]
    assert view(report([], [])).nodes_done.en == "3/3"
    assert view(msgspec.structs.replace(report([], []), nodes=nodes)).nodes_done.en == "1/3 (not whole: n[2-3])"


def test_facts_of_the_run() -> None:
    facts = {f.label.en: f.line("en") for f in view(report([], [])).facts}
    assert facts["Start"] == "1970-01-01 00:00:00 UTC (1970-01-01 01:00:00 +01:00)"
    assert facts["Duration"] == "00:01:01"
    assert facts["Check type"] == "full run"


def test_what_was_left_out_is_told_with_its_reason() -> None:
    left = LeftOut("verbs.bandwidth", "absent", Text("no RDMA device", "没有 RDMA 设备"))
    made = report([], [], plan=Plan([], [], [left], 1.0, budget=60.0))
    for format in ("html", "markdown"):
        assert "no RDMA device" in render.render(made, format, "en")
        assert "没有 RDMA 设备" in render.render(made, format, "zh")


def test_only_telling_events_of_ranks_are_shown() -> None:
    events = [
        RankEvent(0, "node1", 1.0, "started"),
        RankEvent(1, "node2", 2.5, "died", "sweep", signal=9, progress={"bytes": 2048, "iteration": 3}),
    ]
    (section,) = [s for s in view(report([], [], events=events)).sections if s.id == "ranks"]
    (row,) = section.tables[0].rows
    cells = [c.value if isinstance(c.value, str) else c.value.en for c in row.cells]
    assert cells[:7] == ["00:00:02.500", "2.500", "1", "node2", "died (signal 9)", "sweep", "bytes=2 KiB, iteration=3"]
    assert not [s for s in view(report([], [], events=events[:1])).sections if s.id == "ranks"]


# ---------------------------------------------------------------------------------------------- formats


FORMULA = "=cmd|' /C calc'!A0"


def hostile() -> Report:
    """Everything that a node could have a hand in is an attack."""
    proof = [Evidence(HOSTILE, HOSTILE + "\n```\n</pre>")]
    attack = verdict(
        "a",
        HOSTILE,
        Status.FAIL,
        HOSTILE,
        detail=plain(HOSTILE),
        expected=plain(HOSTILE),
        evidence=proof,
        groups=[ValueGroup(HOSTILE, [HOSTILE])],
        hint=plain(HOSTILE),
        action=Action.FIX_CONFIG,
    )
    made = report(
        [info("a")],
        [attack, verdict("a", FORMULA, Status.UNKNOWN, "@SUM(1)", detail=plain("| a | b |\n# x"))],
        command=["cwai-bench", HOSTILE],
        environment={HOSTILE: HOSTILE},
        settings={"x": HOSTILE},
        baseline=HOSTILE,
        gate=Gate(Status.FAIL, 1, [plain(HOSTILE)], [HOSTILE]),
        events=[RankEvent(0, HOSTILE, 1.0, "died", HOSTILE, plain(HOSTILE), progress={HOSTILE: HOSTILE})],
        notes=[plain(HOSTILE)],
    )
    nodes = [NodeRecord(HOSTILE, [0], True, False, plain(HOSTILE)), NodeRecord(FORMULA, [1], True, True)]
    return msgspec.structs.replace(made, nodes=nodes)


class Page(html.parser.HTMLParser):
    """Counts tags and collects what could load, run or style something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.active: list[tuple[str, str]] = []
        self.policy = ""
        self.words = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        given = {name: value or "" for name, value in attrs}
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        for name, value in given.items():
            if name.startswith("on") or name in (
                "src",
                "style",
                "action",
                "formaction",
                "srcset",
                "data",
                "xlink:href",
            ):
                self.active.append((tag, name))
            if name == "href" and not value.startswith("#"):
                self.active.append((tag, value))

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(params=[hostile, *sorted(SAMPLES.glob("*.json"))], ids=lambda p: getattr(p, "stem", "hostile"))
def any_report(request: pytest.FixtureRequest) -> Report:
    if isinstance(request.param, Path):
        return render.report_from_json(request.param.read_bytes(), request.param.name)
    return hostile()


@pytest.mark.parametrize("lang", LANGS)
def test_the_page_holds_one_script_and_nothing_that_loads_anything(any_report: Report, lang: Lang) -> None:
    page = Page(render.render(any_report, "html", lang))
    assert page.tags["script"] == 1
    assert page.tags["style"] == 1
    assert not {"img", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert page.active == []


def test_the_page_forbids_all_but_its_own_style_and_script() -> None:
    page = render.render(hostile(), "html", "en")
    policy = Page(page).policy
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        found = re.search(f"(?s)<{tag}>(.*?)</{tag}>", page)
        assert found is not None
        digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        assert directives[directive] == f"'sha256-{digest}'"
    assert "unsafe" not in policy


@pytest.mark.parametrize("lang", LANGS)
def test_the_page_holds_both_languages_and_starts_in_the_one_asked_for(lang: Lang) -> None:
    page = render.render(hostile(), "html", lang)
    assert f'<html lang="{lang}">' in page
    for words in ("title of a", "a 的title", "Nodes to leave out", "建议剔除的节点"):
        assert words in page


def test_the_page_tells_all_of_an_item() -> None:
    page = Page(render.render(hostile(), "html", "en"))
    for words in ("title of a", "method of a", "criterion of a", "suggestion of a", "mend the configuration"):
        assert words in page.words


@pytest.mark.parametrize("format", [name for name in render.FORMATS if name != "json"])
@pytest.mark.parametrize("lang", LANGS)
def test_no_format_lets_an_active_character_through(any_report: Report, format: str, lang: Lang) -> None:
    made = render.render(any_report, format, lang).removeprefix("\ufeff")
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]", made)
    made.encode("utf-8")


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_terminal_summary_fits_and_keeps_its_own_escapes_only(any_report: Report, color: bool, width: int) -> None:
    from rich.cells import cell_len

    made = render.summary(any_report, "zh", width=width, color=color, where="/tmp/r.html")
    bare = re.sub(r"\x1b\[[0-9;]*m", "", made)
    assert "\x1b" not in bare
    assert ("\x1b[" in made) is color
    assert max(cell_len(line) for line in bare.splitlines()) <= width
    assert "/tmp/r.html" in bare


def test_the_terminal_summary_ends_with_the_verdict() -> None:
    made = render.summary(hostile(), "en", where="/tmp/r.html")
    assert made.index("FAIL") < made.index("Items passed") < made.index("Failed — exit code 1: something failed")


def test_attention_beyond_what_a_terminal_should_show_is_counted() -> None:
    checks = [info(f"a{i}") for i in range(40)]
    made = render.summary(report(checks, [verdict(c.id, "node1", Status.FAIL, "bad") for c in checks]), "en")
    assert made.count("→ suggestion of") == 30
    assert "and 10 more" in made


def test_what_is_not_known_is_told_once() -> None:
    checks = [info("a1"), info("a2"), info("a3")]
    found = [
        verdict("a1", "node1", Status.UNKNOWN, "", reason_code="timeout", detail=plain("it hung")),
        verdict("a2", "node1", Status.WARN, "odd"),
        verdict("a3", "node1", Status.FAIL, "bad"),
    ]
    said = [Text("title of a1: not known of node1", ""), Text("title of a3: failed on node1", "")]
    whole = report(checks, found)
    whole = msgspec.structs.replace(whole, gate=msgspec.structs.replace(whole.gate, because=said))
    made = render.summary(whole, "en")
    assert made.count("not known of node1") == 0
    assert made.splitlines()[-3:] == [
        "  · title of a3: failed on node1",
        "  · not known, see above: a1",
        "  · warnings, see above: a2",
    ]


def test_a_summary_can_be_asked_for_all() -> None:
    made = render.summary(hostile(), "en", width=160, verbose=True)
    assert len(made) > len(render.summary(hostile(), "en", width=160))
    checks = [info("a1"), info("a2")]
    found = [verdict("a1", "node1", Status.PASS, "fine"), verdict("a2", "node1", Status.SKIP, "")]
    brief, full = (render.summary(report(checks, found), "en", verbose=more) for more in (False, True))
    assert ("fine" in brief, "fine" in full) == (False, True)
    assert "a2" not in full


def test_junit_counts_what_it_holds() -> None:
    verdicts = [
        verdict("a", f"node{i}", status, str(i))
        for i, status in enumerate((Status.PASS, Status.FAIL, Status.UNKNOWN, Status.SKIP, Status.NA, Status.WARN))
    ]
    root = Xml.fromstring(render.render(report([info("a"), info("b")], verdicts), "junit", "en"))
    cases = root.findall("testsuite/testcase")
    assert int(root.get("tests", "")) == len(cases) == 8  # six verdicts, b that has none, and the gate
    assert int(root.get("failures", "")) == len(root.findall(".//failure")) == 2
    assert int(root.get("errors", "")) == len(root.findall(".//error")) == 2
    assert int(root.get("skipped", "")) == len(root.findall(".//skipped")) == 2
    (warned,) = root.findall(".//system-out")
    assert (warned.text or "").startswith("WARN: ")
    assert len({(c.get("classname"), c.get("name")) for c in cases}) == len(cases)


@pytest.mark.parametrize(
    ("status", "code", "tag"), [(Status.UNKNOWN, 3, "error"), (Status.FAIL, 1, "failure"), (Status.PASS, 0, None)]
)
def test_junit_is_green_only_when_the_gate_is(status: Status, code: int, tag: str | None) -> None:
    made = report([info("a")], [verdict("a", "node1", Status.PASS)], gate=Gate(status, code, [], []))
    root = Xml.fromstring(render.render(made, "junit", "en"))
    assert [child.tag for child in root.findall("testsuite[@name='gate']/testcase/*")] == ([tag] if tag else [])


def test_junit_takes_hostile_text() -> None:
    root = Xml.fromstring(render.render(hostile(), "junit", "en"))
    assert "alert(1)" in "".join(root.itertext())
    assert {e.tag for e in root.iter()} == {"testsuites", "testsuite", "testcase", "failure", "error"}


def test_csv_has_a_row_for_each_verdict_and_no_formula() -> None:
    made = render.render(hostile(), "csv", "en")
    assert made.startswith("\ufeff")
    rows = list(csv.DictReader(io.StringIO(made.removeprefix("\ufeff"), newline="")))
    assert tuple(rows[0]) == HEADER
    assert [row["status"] for row in rows] == ["FAIL", "UNKNOWN"]
    assert rows[1]["node"] == "'" + FORMULA
    assert rows[1]["observed"] == "'@SUM(1)"
    assert all(cell[:1] not in tuple("=+-@") for row in rows for cell in row.values())


@pytest.mark.parametrize("cell", ["=1", "+1", "-1", "@a", "  =1", "＝1", "\t=1"])
def test_a_formula_is_guarded(cell: str) -> None:
    assert guarded(cell) == "'" + cell


@pytest.mark.parametrize("cell", ["", "a=1", "node-1", "96 of 96", "≥ 1"])
def test_plain_words_are_not(cell: str) -> None:
    assert guarded(cell) == cell


def test_markdown_escapes_what_would_be_markup() -> None:
    assert escaped("<b>*x*</b> [a](b) | `c`\n# d @all") == (
        "\\<b\\>\\*x\\*\\</b\\> \\[a\\](b) \\| \\`c\\` \\# d &#64;all"
    )
    assert code("a`b``c|d") == "```a`b``c\\|d```"
    assert code("`a`") == "`` `a` ``"


def test_markdown_fences_evidence_that_holds_a_fence() -> None:
    made = render.render(hostile(), "markdown", "en")
    (fence,) = set(re.findall(r"(?m)^(`{4,})$", made))
    assert made.split(fence)[1].count("```") == 1


def test_a_cell_of_a_markdown_table_never_adds_a_column(any_report: Report) -> None:
    made = render.render(any_report, "markdown", "en")
    tables = re.findall(r"(?m)(?:^\|.*\n)+", made)
    assert tables
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


@pytest.mark.parametrize("format", list(render.FORMATS))
def test_every_format_says_what_it_is_in_both_languages(format: str) -> None:
    made = render.RENDERERS[format]
    assert made.suffix.startswith(".")
    assert made.title.en != made.title.zh


def test_what_follows_from_one_failure_is_told_once() -> None:
    down = Text("the driver does not answer: see item a", "驱动无响应，见 a")
    follows: dict[str, Any] = {"detail": down, "reason_code": "cause"}
    verdicts = [
        verdict("a", "node1", Status.FAIL, "no answer"),
        *(verdict(id, "node1", Status.UNKNOWN, **follows) for id in "bcd"),
        verdict("e", "node1", Status.UNKNOWN, detail=Text("it was slow", "过慢"), reason_code="timeout"),
        verdict("f", "node1", Status.UNKNOWN, **follows),
        verdict("f", "node2", Status.FAIL, "9"),
    ]
    made = report([info(id) for id in "abcdef"], verdicts)
    assert {id for id, item in items(made).items() if item.cause is not None} == {"b", "c", "d"}
    said = render.summary(made, "en")
    assert (
        "UNKNOWN 3 items of node1 follow from that: the driver does not answer: see item a\n        b, c, d\n" in said
    )
    assert said.count("the driver does not answer") == 2  # once more beside node2, whose f failed
    assert "UNKNOWN node1 有 3 项因此未知：驱动无响应，见 a" in render.summary(made, "zh")
