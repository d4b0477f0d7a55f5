"""A report as JSON: the form in which it is saved, and out of which every other form can be made again.

It holds all but the raw samples of the measurements, which stay in the journal; their statistics are kept.
``reports/report.schema.json`` is its published schema.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from cwai_bench.errors import UsageError
from cwai_bench.model import SCHEMA_READ, SCHEMA_VERSION, Measurement, Report, Scalar, stats_of
from cwai_bench.render import renderer
from cwai_bench.text import Lang, Text

SCHEMA_ID = f"urn:cwai-bench:report:{SCHEMA_VERSION}"

# What a terminal or an editor would act upon instead of show: C1 controls, marks of text direction, lone halves of
# surrogate pairs. Within JSON they can only stand in strings, so that an escape means the same.
_ACTIVE = re.compile("[\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")

_AS_FOR_CLI = Text(
    "give a report.json that cwai-bench wrote, or the id of a run",
    "请给出 cwai-bench 写出的 report.json，或一次运行的编号",
)


@renderer("json", suffix=".json", title=Text("JSON with a published schema", "带公开模式的 JSON"))
def write(report: Report, lang: Lang) -> str:
    return report_to_json(report).decode()


def report_to_json(report: Report) -> bytes:
    """UTF-8 JSON, indented, ending in a newline. Odd bytes of strings that are no Unicode text read ``\\udcXX``."""
    slim = msgspec.structs.replace(report, measurements=[_slim(m) for m in report.measurements])
    try:
        raw = msgspec.json.encode(slim)
    except UnicodeEncodeError:  # file names and arguments may hold bytes that are not UTF-8
        raw = msgspec.json.encode(_unicode(msgspec.to_builtins(slim)))
    text = msgspec.json.format(raw, indent=2).decode()
    return (_ACTIVE.sub(lambda m: f"\\u{ord(m[0]):04x}", text) + "\n").encode()


def _slim(m: Measurement) -> Measurement:
    """Without samples, with statistics; numbers that JSON cannot hold are not passed off as measured."""
    stats = m.stats if m.stats is not None else stats_of(m.samples)
    parameters: dict[str, Scalar] = {
        k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in m.parameters.items()
    }
    slim = msgspec.structs.replace(m, samples=[], stats=stats, parameters=parameters)
    if stats is not None and not all(math.isfinite(x) for x in msgspec.structs.astuple(stats)):
        reason = Text("a sample was not a finite number", "有样本不是有限数值")
        slim = msgspec.structs.replace(slim, stats=None, status="error", reason_code="error", reason=reason)
    return slim


def _unicode(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_unicode(k): _unicode(v) for k, v in value.items()}
    return [_unicode(v) for v in value] if isinstance(value, list) else value


class _Version(msgspec.Struct):
    """Just enough of any report, of any version, to tell which version it is."""

    schema: int
    run_id: str
    gate: msgspec.Raw
    verdicts: msgspec.Raw


def report_from_json(data: bytes, name: str = "report.json") -> Report:
    """The report in ``data``. Raises UsageError, which names the file ``name``, when there is none that we can read."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise _refused(
            name, Text("it is not UTF-8 text (byte {n})", "不是 UTF-8 文本（第 {n} 字节）").fill(n=e.start)
        ) from e
    try:
        version = msgspec.json.decode(data, type=_Version)
    except msgspec.ValidationError as e:
        raise _refused(name, Text("it is not a report ({e})", "不是检测报告（{e}）").fill(e=e)) from e
    except (msgspec.DecodeError, RecursionError) as e:
        cut = not data.strip() or "truncated" in str(e)
        what = (
            Text("it is empty or cut short", "文件为空或不完整")
            if cut
            else Text("it is not JSON ({e})", "不是 JSON（{e}）")
        )
        raise _refused(name, what.fill(e=e)) from e
    if version.schema not in SCHEMA_READ:
        raise UsageError(
            Text(
                "{name}: report format {n} is not known to this version, which reads format {ours}",
                "{name}：本版本不认识报告格式 {n}，只能读取格式 {ours}",
            ).fill(name=name, n=version.schema, ours=", ".join(map(str, SCHEMA_READ))),
            Text("read it with the version of cwai-bench that wrote it", "请用写出该报告的 cwai-bench 版本读取"),
        )
    try:
        read = msgspec.json.decode(data, type=Report)
    except msgspec.ValidationError as e:
        raise _refused(name, Text("it is not a whole report ({e})", "报告内容不符合格式（{e}）").fill(e=e)) from e
    # Whoever writes it again writes what this version writes.
    return msgspec.structs.replace(read, schema=SCHEMA_VERSION)


def _refused(name: str, why: Text) -> UsageError:
    return UsageError(Text("cannot read {name}: {why}", "无法读取 {name}：{why}").fill(name=name, why=why), _AS_FOR_CLI)


def schema() -> bytes:
    """The JSON Schema (draft 2020-12) of a saved report, as it is published in ``reports/report.schema.json``."""
    made = msgspec.json.schema(Report)
    made["$defs"]["Report"]["properties"]["schema"] = {"const": SCHEMA_VERSION}
    made["$defs"]["Report"]["required"].append("schema")
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": f"cwai-bench report, format {SCHEMA_VERSION}",
    }
    return msgspec.json.format(msgspec.json.encode(head | made), indent=2) + b"\n"
