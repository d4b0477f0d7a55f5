"""A person's own scripts: the [script] table, the file of each, and what an answer means."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cwai_bench import config, render, scripts
from cwai_bench.checks.script import LINE_LIMIT
from cwai_bench.config import parse_criteria
from cwai_bench.errors import UsageError
from cwai_bench.judge import judge
from cwai_bench.launch import parcel
from cwai_bench.model import Action, Facts, NodeRecord, Plan, Reading, Report, Run, ScriptSpec, Severity, Status
from cwai_bench.plan import Choice, make_plan
from cwai_bench.probes import Options, World
from cwai_bench.text import LANGS

GOOD = "#!/bin/sh\nexit 0\n"


def parsed(table: str) -> dict[str, ScriptSpec]:
    return dict(parse_criteria(f"[script]\n{table}\n", "my.toml", {}, []).scripts)


def one(fields: str = "") -> ScriptSpec:
    (spec,) = parsed(f'a = {{ file = "a.sh"{", " if fields else ""}{fields} }}').values()
    return spec


def refused(table: str) -> str:
    with pytest.raises(UsageError) as e:
        parsed(table)
    assert all(e.value.show(lang) for lang in LANGS)
    return e.value.show("en")


# --------------------------------------------------------------------------------------------- the table


def test_what_is_left_out_has_its_documented_value() -> None:
    spec = one()
    assert (spec.info.id, spec.limit, spec.nodes, spec.arguments) == ("script.a", 600.0, "", [])
    assert (spec.info.severity, spec.info.action, spec.info.required) == (Severity.MAJOR, Action.FIX_CONFIG, True)
    assert (dict(spec.exits), spec.other) == ({0: Status.PASS, 126: Status.UNKNOWN, 127: Status.UNKNOWN}, Status.FAIL)


def test_every_field() -> None:
    spec = one(
        'args = ["-v", "/data"], title = "Site", title_zh = "站点", suggestion = "call ops", severity = "critical", '
        'action = "isolate", limit = "20 min", expected = 30, nodes = "node[1-3]", root = true, required = false, '
        'exit = { warn = 1, fail = [2, 3], skip = [77], other = "unknown" }, output = { fail = "^ERR", pass = "ok" }'
    )
    assert spec.arguments == ["-v", "/data"]
    assert (spec.info.title.en, spec.info.title.zh) == ("Site", "站点")
    assert (spec.info.suggestion.en, spec.info.suggestion.zh) == ("call ops", "call ops")
    assert (spec.info.severity, spec.info.action) == (Severity.CRITICAL, Action.ISOLATE)
    assert (spec.limit, spec.expected, spec.nodes) == (1200.0, 30.0, "node[1-3]")
    assert (spec.root, spec.info.required, spec.info.needs) == (True, False, ["root"])
    assert dict(spec.exits)[1] is Status.WARN
    assert dict(spec.exits)[77] is Status.SKIP
    assert spec.other is Status.UNKNOWN
    assert spec.output == [(Status.FAIL, "^ERR"), (Status.PASS, "ok")]
    assert "^ERR" in spec.info.criterion.en
    assert "1200 s" in spec.info.method.en
    assert msgspec.json.decode(msgspec.json.encode(spec), type=ScriptSpec) == spec


def test_the_example_of_the_page_loads() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/scripts.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.S)
    found = parse_criteria(example, "docs", {}, []).scripts
    assert list(found) == ["script.site_mount", "script.burn_in", "script.disk"]
    assert all(f"`{field}`" in page for field in scripts.FIELDS)


def test_nested_tables_name_the_item() -> None:
    assert list(parsed('site.mount.file = "a"\n[script.site.dns]\nfile = "b"')) == [
        "script.site.mount",
        "script.site.dns",
    ]


def test_the_mapping_of_monitoring_plugins() -> None:
    spec = one('exit = "nagios"')
    found = [dict(spec.exits).get(code, spec.other) for code in (0, 1, 2, 3, 4)]
    assert found == [Status.PASS, Status.WARN, Status.FAIL, Status.UNKNOWN, Status.UNKNOWN]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('a = "a.sh"', "my.toml:2: script.a: expected a table"),
        ("a = {}", "script.a: it lacks file"),
        ("a = { limit = 5 }", "script.a: it lacks file"),
        ('a = { file = "" }', "script.a.file: expected some text"),
        ("a = { file = 5 }", "script.a.file: expected some text"),
        ('a = { file = "a", limits = 5 }', "did you mean limit?"),
        ('a = { file = "a", limit = "9 Gb/s" }', "script.a.limit: '9 Gb/s' is no time"),
        ('a = { file = "a", limit = 0 }', "script.a.limit: 0 is no time"),
        ('a = { file = "a", limit = "8 d" }', "from above 0 to 7 days"),
        ('a = { file = "a", expected = -1 }', "script.a.expected"),
        ('a = { file = "a", args = "-v" }', "script.a.args: expected a list of words"),
        ('a = { file = "a", args = ["\\u0000"] }', "script.a.args"),
        ('a = { file = "a", nodes = "node[1-" }', "script.a.nodes: no node set"),
        ('a = { file = "a", nodes = "" }', "script.a.nodes: expected a node set"),
        ('a = { file = "a", severity = "mayor" }', "did you mean major?"),
        ('a = { file = "a", action = "panic" }', "script.a.action"),
        ('a = { file = "a", root = "yes" }', "script.a.root: expected true or false"),
        ('a = { file = "a", required = 1 }', "script.a.required: expected true or false"),
        ('a = { file = "a", exit = "nagois" }', "script.a.exit"),
        ('a = { file = "a", exit = { fial = [1] } }', "did you mean fail?"),
        ('a = { file = "a", exit = { warn = [256] } }', "expected exit codes (0 to 255)"),
        ('a = { file = "a", exit = { warn = [true] } }', "expected exit codes"),
        ('a = { file = "a", exit = { warn = [] } }', "expected exit codes"),
        ('a = { file = "a", exit = { warn = 1, fail = [2, 1] } }', "exit code 1 already means WARN"),
        ('a = { file = "a", exit = { other = "maybe" } }', "script.a.exit.other"),
        ('a = { file = "a", output = "x" }', "script.a.output: expected a table"),
        ('a = { file = "a", output = { fail = "(" } }', "is no regular expression"),
        ('a = { file = "a", output = { fail = 3 } }', "is no regular expression"),
        ('a = { file = "a", output = { na = "x" } }', "there is no such verdict"),
        ('"a b" = { file = "a" }', "letters, digits"),
    ],
)
def test_what_is_wrong_is_named(table: str, said: str) -> None:
    assert said in refused(table)


def test_a_file_of_scripts_alone_is_a_criteria_file() -> None:
    assert config.has_criteria('[script]\na = { file = "a" }', "my.toml")


def test_a_script_can_be_suppressed_and_only_one_that_is_there() -> None:
    entry = '{ owner = "ops", reason = "known", until = 2030-01-01 }'
    text = f'[script]\na = {{ file = "a" }}\n[suppress]\nscript.%s = {entry}\n'
    assert parse_criteria(text % "a", "my.toml", {}, []).suppressions[0].item == "script.a"
    with pytest.raises(UsageError, match="no such item"):
        parse_criteria(text % "b", "my.toml", {}, [])


# --------------------------------------------------------------------------------------------- the files


def test_a_script_is_found_beside_the_criteria_file(tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text(GOOD)
    (script,) = scripts.load([one()], tmp_path)
    assert script.text == GOOD
    assert len(script.spec.digest) == 64


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"exit 0\n", "names no interpreter"),
        (b"", "names no interpreter"),
        (b"#!bash\n", "names no interpreter"),
        (b"\x7fELF", "names no interpreter"),
        (b"#!/bin/sh\r\nexit 0\r\n", "Windows line ends"),
        (b"#!/bin/sh\n\xff", "not UTF-8"),
        (b"#!/bin/sh\n" + b"#" * scripts.SCRIPT_SIZE, "larger than 256 KiB"),
    ],
)
def test_what_could_not_be_run_is_refused_on_load(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "a.sh").write_bytes(content)
    with pytest.raises(UsageError) as e:
        scripts.load([one()], tmp_path)
    assert said in e.value.show("en")
    assert "script.a" in e.value.show("zh")


def test_what_is_no_plain_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.sh")
    with pytest.raises(UsageError, match="not a plain file"):
        scripts.load([one()], tmp_path)
    (tmp_path / "a.sh").unlink()
    (tmp_path / "a.sh").mkdir()
    with pytest.raises(UsageError, match="plain file|cannot be read"):
        scripts.load([one()], tmp_path)


# --------------------------------------------------------------------------------------------- the plan


def planned(*specs: ScriptSpec, nodes: tuple[str, ...] = ("node1", "node2"), **changes: Any) -> Plan:
    return make_plan(Choice("check", scripts=specs, **changes), World(len(nodes), nodes, mpi=False))


def test_scripts_are_chosen_as_other_items_are() -> None:
    specs = parsed('a.file = "a"\nb.file = "b"').values()
    assert len(planned(*specs).scripts) == 2
    only = planned(*specs, items=("script.*",))
    assert (len(only.scripts), only.checks) == (2, [])
    assert [s.info.id for s in planned(*specs, skip=("script.a",)).scripts] == ["script.b"]
    with pytest.raises(UsageError) as e:
        planned(*specs, items=("script.c",))
    assert "script." in e.value.show("en").split("→")[1]


def test_other_commands_run_no_scripts() -> None:
    world = World(2, ("node1", "node2"), mpi=True)
    assert make_plan(Choice("rdma", scripts=(one(),)), world).scripts == []


def test_what_is_left_out_says_why() -> None:
    elsewhere = planned(one('nodes = "other[1-3]"'))
    assert (elsewhere.scripts, elsewhere.left_out[0].reason_code) == ([], "not_selected")
    assert "other[1-3]" in elsewhere.left_out[0].reason.en
    recorded = planned(one(), recorded=True)
    assert (recorded.scripts, [x.what for x in recorded.left_out if x.reason_code == "absent"]) == ([], ["script.a"])


def test_a_budget_counts_what_is_expected_else_the_limit() -> None:
    assert planned(one(), budget=60.0).scripts == []
    assert len(planned(one("expected = 5"), budget=60.0).scripts) == 1
    assert planned(one()).expected == planned().expected
    assert planned(one("expected = 5")).expected == planned().expected + 5


def test_the_item_timeout_of_the_command_line_shortens_a_limit_and_never_lengthens_it() -> None:
    (spec,) = planned(one(), options=Options(item_timeout=7.0)).scripts
    assert (spec.limit, "7 s" in spec.info.method.en) == (7.0, True)
    (spec,) = planned(one("limit = 3"), options=Options(item_timeout=7.0)).scripts
    assert spec.limit == 3.0


# --------------------------------------------------------------------------------------------- the verdict


def report_of(
    spec: ScriptSpec, *readings: Reading | None, criteria: config.Criteria | None = None, nodes: int = 0
) -> Report:
    facts = [Facts(f"node{n}", 0.0, True, False, {} if r is None else {r.source: r}) for n, r in enumerate(readings, 1)]
    run = Run(
        run_id="20260101T000000Z-check-abcdef",
        run_type="check",
        command=[],
        version="0.1.0",
        started=0.0,
        finished=1.0,
        utc_offset=0,
        status="complete",
        world_size=len(facts),
        plan=Plan([], [], [], 1.0, scripts=[spec]),
        environment={},
        settings={},
        nodes=[NodeRecord(f.node, [n], True, True) for n, f in enumerate(facts)],
        facts=facts,
        measurements=[],
        events=[],
    )
    return judge(run, criteria=criteria)


def answer(text: str = "", code: int | None = 0, **changes: Any) -> Reading:
    return msgspec.structs.replace(Reading("script:script.a", "ok", text, exit_code=code), **changes)


def verdict(spec: ScriptSpec, reading: Reading | None) -> Any:
    return next(v for v in report_of(spec, reading).verdicts if v.check == "script.a")


@pytest.mark.parametrize(
    ("fields", "text", "code", "status"),
    [
        ("", "", 0, "PASS"),
        ("", "all is well", 1, "FAIL"),
        ("", "", 127, "UNKNOWN"),
        ("", "", -9, "UNKNOWN"),
        ("exit = { fail = [127] }", "", 127, "FAIL"),
        ("exit = { warn = [1] }", "", 1, "WARN"),
        ("exit = { warn = [1] }", "", 2, "FAIL"),
        ('exit = { skip = [77], other = "warn" }', "", 77, "SKIP"),
        ('exit = { skip = [77], other = "warn" }', "", 5, "WARN"),
        ('exit = "nagios"', "DISK CRITICAL", 2, "FAIL"),
        ('exit = "nagios"', "", 3, "UNKNOWN"),
        ('output = { fail = "^ERR" }', "fine\nERR 5", 0, "FAIL"),
        ('output = { fail = "^ERR" }', "no ERR", 0, "PASS"),
        ('output = { pass = "ok" }', "ok", 0, "PASS"),
        ('output = { pass = "ok" }', "", 0, "UNKNOWN"),
        ('output = { pass = "ok" }', "ok", 1, "FAIL"),
        ('exit = { skip = [77] }, output = { pass = "ok" }', "no card", 77, "SKIP"),
        ('exit = { warn = [1] }, output = { pass = "ok" }', "slow", 1, "WARN"),
        ('output = { pass = "ok", warn = "slow" }', "ok\nslow", 0, "WARN"),
        ('output = { skip = "no card" }', "no card", 0, "SKIP"),
        ('output = { skip = "no card" }', "no card", 1, "FAIL"),
        ('output = { unknown = "busy", warn = "slow" }', "slow\nbusy", 0, "UNKNOWN"),
    ],
)
def test_exit_code_and_output_make_one_verdict(fields: str, text: str, code: int, status: str) -> None:
    found = verdict(one(fields), answer(text, code))
    assert found.status.value == status
    assert found.evidence[0].source == "script:script.a"


def test_the_first_line_that_says_anything_is_observed() -> None:
    assert verdict(one(), answer("\n  \n 3 mounts stale\nmore", 1)).observed == "3 mounts stale"
    assert verdict(one(), answer("", 4)).observed == "exit code 4"


@pytest.mark.parametrize(
    ("reading", "code"),
    [
        (None, "missing_source"),
        (answer("half", None, status="timeout", detail="ended after 600 s"), "timeout"),
        (answer("", None, status="missing", detail="#!/bin/nosuch"), "missing_tool"),
        (answer("", None, status="denied", detail="it asks to be run as root"), "permission"),
        (answer("", None, status="error", detail="its guard gave no answer"), "error"),
        (answer("", -11), "error"),
    ],
)
def test_what_did_not_run_to_its_end_is_unknown(reading: Reading | None, code: str) -> None:
    found = verdict(one('output = { pass = "half" }'), reading)
    assert (found.status, found.reason_code) == (Status.UNKNOWN, code)


def test_what_was_cut_off_may_have_held_the_fault() -> None:
    cut = answer("ok\n", 0, truncated=True)
    assert verdict(one('output = { fail = "ERR" }'), cut).status is Status.UNKNOWN
    assert verdict(one('output = { pass = "ok" }'), cut).status is Status.PASS
    assert verdict(one(), cut).status is Status.PASS
    assert "only the beginning" in verdict(one(), cut).evidence[0].text
    assert verdict(one('output = { fail = "ERR" }'), answer("x" * LINE_LIMIT + "ERR")).status is Status.UNKNOWN


def test_a_pattern_that_backtracks_is_held_against_bounded_lines_only() -> None:
    assert verdict(one("output = { fail = 'a+b' }"), answer("a" * 60_000)).status is Status.UNKNOWN


def test_nodes_that_were_not_chosen_are_skipped_by_name() -> None:
    report = report_of(one('nodes = "node1"'), answer(), None)
    found = {n: (v.status, v.reason_code) for v in report.verdicts if v.check == "script.a" for n in v.nodes}
    assert found == {"node1": (Status.PASS, ""), "node2": (Status.SKIP, "not_selected")}
    assert report.gate.exit_code == 0


def test_a_script_counts_for_the_gate_unless_it_is_not_required() -> None:
    failed = report_of(one(), answer(), answer("bad", 1))
    assert (failed.gate.exit_code, failed.gate.leave_out) == (1, ["node2"])
    assert report_of(one(), answer(), None).gate.exit_code == 3
    for reading in (answer("bad", 1), None):
        report = report_of(one("required = false"), answer(), reading)
        # With no other item nothing that counts was judged; but it fails nothing either.
        assert (report.gate.exit_code, report.gate.leave_out) == (3, [])
        assert not any("script" in reason.en for reason in report.gate.because)


def test_another_mapping_judges_the_same_answer_again() -> None:
    assert report_of(one(), answer("old", 1)).gate.exit_code == 1
    now = parse_criteria('[script]\na = { file = "gone.sh", exit = { warn = [1] }, title = "New" }', "new.toml", {}, [])
    report = report_of(one(), answer("old", 1), criteria=now)
    assert report.gate.exit_code == 0
    assert next(i for i in report.checks if i.id == "script.a").title.en == "New"


def test_scripts_of_the_file_that_had_no_part_are_told_of() -> None:
    now = parse_criteria('[script]\na.file = "a"\nb.file = "b"', "new.toml", {}, [])
    assert any("script.b" in note.en for note in report_of(one(), answer(), criteria=now).notes)


def test_hostile_output_is_shown_harmless_in_every_format() -> None:
    text = "\x1b[2J</script><img src=x onerror=alert(1)>\x00\u202e" + "A" * 1000
    report = report_of(one('title = "T", nodes = "node1"'), answer(text, 1))
    assert len(next(v for v in report.verdicts if v.check == "script.a").observed) <= 400
    for name in render.RENDERERS:
        shown = render.render(report, name, "en")
        assert "\x1b[2J" not in shown
        assert "\x00" not in shown
        assert "\u202e" not in shown
        if name == "html":
            assert "<img src=x" not in shown
    again = render.report_from_json(render.render(report, "json", "en").encode())
    assert again.plan.scripts == report.plan.scripts


def test_every_format_names_the_script_in_both_languages() -> None:
    report = report_of(one('title = "Site mount", title_zh = "站点挂载"'), answer("bad", 1))
    for name in ("text", "html", "markdown", "junit", "csv"):
        assert "Site mount" in render.render(report, name, "en")
        assert "站点挂载" in render.render(report, name, "zh")


def test_what_it_said_travels_with_the_journal() -> None:
    text = "same everywhere\n" * 20
    line = json.dumps(
        {
            "type": "facts",
            "facts": {
                "node": "node1",
                "taken": 0.0,
                "privileged": True,
                "recorded": False,
                "readings": {"script:script.a": {"source": "script:script.a", "status": "ok", "text": text}},
            },
        },
        separators=(",", ":"),
    ).encode()
    packed, texts = parcel.pack([line])
    assert list(texts.values()) == [text]
    assert text in msgspec.json.decode(parcel.unpack(packed, texts)[0])["facts"]["readings"]["script:script.a"]["text"]
