from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from cwai_bench.errors import UsageError
from cwai_bench.model import SCHEMA_VERSION, Gate, Measurement, NodeRecord, Plan, Report, Scalar, Status, Subject
from cwai_bench.render import report_from_json, report_to_json
from cwai_bench.render.json import SCHEMA_ID, schema

FORMATS = Path(__file__).resolve().parents[1] / "fixtures" / "formats"


def report(**changes: Any) -> Report:
    whole = Report(
        run_id="20260131T000000Z-run-aaaaaa",
        run_type="run",
        status="complete",
        command=["cwai-bench", "run"],
        version="0.1.0",
        started=1.0,
        finished=2.0,
        utc_offset=0,
        world_size=1,
        nodes=[NodeRecord("node1", [0], True, True)],
        baseline=None,
        environment={},
        settings={},
        plan=Plan([], [], [], 1.0),
        checks=[],
        verdicts=[],
        measurements=[],
        events=[],
        counts={},
        gate=Gate(Status.UNKNOWN, 3, [], []),
        notes=[],
    )
    return msgspec.structs.replace(whole, **changes)


def measurement(samples: list[float], parameters: dict[str, Scalar] | None = None) -> Measurement:
    return Measurement("m", "s", Subject("node", "node1"), samples, parameters or {}, 0.0, 1.0, "node1", 0)


def test_what_is_saved_reads_back_without_its_samples_and_with_their_statistics() -> None:
    back = report_from_json(report_to_json(report(measurements=[measurement([3.0, 1.0, 2.0])])))
    (m,) = back.measurements
    assert m.samples == []
    assert m.stats is not None
    assert (m.stats.count, m.stats.min, m.stats.p50, m.stats.max, m.stats.mean) == (3, 1.0, 2.0, 3.0, 2.0)
    assert report_from_json(report_to_json(back)) == back


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_sample_that_is_no_number_is_an_error_of_the_measurement_not_of_the_report(bad: float) -> None:
    (m,) = report_from_json(report_to_json(report(measurements=[measurement([1.0, bad], {"limit": bad})]))).measurements
    assert (m.stats, m.status, m.reason_code) == (None, "error", "error")
    assert m.parameters == {"limit": str(bad)}


def test_arguments_that_are_not_unicode_do_not_keep_a_report_from_being_saved() -> None:
    argument = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert report_from_json(report_to_json(report(command=[argument]))).command == ["caf\\udce9"]


def test_what_a_terminal_would_act_upon_is_escaped_and_reads_back_as_it_was() -> None:
    name = "a\x1b[2J\x9b31m\u202eb\u200b"
    data = report_to_json(report(nodes=[NodeRecord(name, [0], True, True)]))
    assert not set("\x1b\x9b\u202e\u200b") & set(data.decode())
    assert report_from_json(data).nodes[0].name == name


def refusal(data: bytes) -> str:
    with pytest.raises(UsageError) as caught:
        report_from_json(data, "/some/report.json")
    shown = caught.value.show("en")
    assert shown.startswith(("cannot read /some/report.json: ", "/some/report.json: "))
    assert "→" in shown
    assert "/some/report.json" in caught.value.show("zh")
    assert caught.value.exit_code == 2
    return shown


GOOD = report_to_json(report())


@pytest.mark.parametrize("data", [b"", b"  \n", GOOD[: len(GOOD) // 2], GOOD.rstrip()[:-1]])
def test_a_file_cut_short_is_refused(data: bytes) -> None:
    assert "cut short" in refusal(data)


def test_a_file_that_is_no_json_is_refused() -> None:
    assert "it is not JSON" in refusal(b"<!doctype html>")
    assert "it is not JSON" in refusal(GOOD + b"}")


def test_a_file_that_is_no_utf8_is_refused_with_the_place() -> None:
    assert "byte 4" in refusal(b'{"a\xff": 1}'[:3] + b"x\xff")
    assert "not UTF-8" in refusal(GOOD.decode().encode("utf-16"))


@pytest.mark.parametrize(
    "data", [b"[]", b"7", b"{}", b'{"schema": 1, "run_id": "x"}', b'{"schema": "1", "run_id": "x"}']
)
def test_json_that_is_no_report_is_refused(data: bytes) -> None:
    assert "it is not a report" in refusal(data)


def test_json_nested_without_end_is_refused() -> None:
    refusal(b'{"schema": ' + b"[" * 100_000)


def changed(**fields: object) -> bytes:
    return json.dumps(json.loads(GOOD) | fields).encode()


def test_an_unknown_version_is_refused_by_its_number() -> None:
    assert f"report format 99 is not known to this version, which reads format 1, 2, {SCHEMA_VERSION}" in refusal(
        changed(schema=99)
    )


def test_an_unknown_version_is_named_even_when_nothing_else_of_it_is_understood() -> None:
    future = b'{"schema": 4, "run_id": "x", "gate": "new", "verdicts": {"new": true}}'
    assert "report format 4" in refusal(future)


def test_a_report_of_the_first_format_still_reads_and_is_written_as_one_of_today() -> None:
    old = (FORMATS / "report-1.json").read_bytes()
    assert json.loads(old)["schema"] == 1
    read = report_from_json(old)
    assert read.measurements
    assert all(m.counters == {} for m in read.measurements)
    again = json.loads(report_to_json(read))
    jsonschema.validate(again, json.loads(schema()))


def test_a_report_of_the_second_format_still_reads_with_its_matrices() -> None:
    old = (FORMATS / "report-2.json").read_bytes()
    assert json.loads(old)["schema"] == 2
    read = report_from_json(old)
    assert read.matrices
    assert (read.transfers, read.path_faults) == ([], [])
    jsonschema.validate(json.loads(report_to_json(read)), json.loads(schema()))


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"world_size": "2"}, "$.world_size"),
        ({"status": "done"}, "$.status"),
        ({"gate": {"status": "MAYBE", "exit_code": 0, "because": [], "leave_out": []}}, "$.gate.status"),
        ({"notes": [{"en": "only English"}]}, "$.notes[0]"),
    ],
)
def test_a_field_of_the_wrong_form_is_refused_with_its_place(fields: dict[str, object], place: str) -> None:
    shown = refusal(changed(**fields))
    assert "not a whole report" in shown
    assert place in shown


def test_the_schema_names_itself_and_its_version() -> None:
    made = json.loads(schema())
    assert made["$id"] == SCHEMA_ID == f"urn:cwai-bench:report:{SCHEMA_VERSION}"
    assert made["$defs"]["Report"]["properties"]["schema"] == {"const": SCHEMA_VERSION}


@pytest.mark.parametrize(
    "fields", [{"schema": 1}, {"status": "done"}, {"gate": None}, {"utc_offset": 1.5}, {"nodes": ["node1"]}]
)
def test_the_schema_refuses_what_is_no_report(fields: dict[str, object]) -> None:
    made = json.loads(schema())
    jsonschema.validate(json.loads(GOOD), made)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(changed(**fields)), made)
