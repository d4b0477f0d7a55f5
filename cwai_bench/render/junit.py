"""A report as JUnit XML, for systems that know test results: a verdict is a test case, a kind of item a suite.

FAIL is a failure, UNKNOWN an error, SKIP and NA are skipped, WARN passes and says so in its output; what is suppressed
is skipped, its type being what it came out as. The first suite holds the verdict of the whole run, so that a run that
lost a node is never green.
"""

from __future__ import annotations

import time
from xml.etree import ElementTree as Xml

from cwai_bench.model import ItemKind, Report, Status
from cwai_bench.render import labels, renderer, units
from cwai_bench.render.view import Item, Result, View, view
from cwai_bench.text import Lang, Text


@renderer("junit", suffix=".xml", title=Text("JUnit XML for CI systems", "供 CI 系统使用的 JUnit XML"))
def write(report: Report, lang: Lang) -> str:
    seen = view(report)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(report.started))
    root = Xml.Element("testsuites", name=f"cwai-bench {seen.run_id}")
    _suite(root, "gate", stamp, [_gate(seen, lang)])
    for kind in ItemKind:
        cases = [_case(item, result, lang) for item in seen.items if item.kind is kind for result in _results(item)]
        if cases:
            _suite(root, kind.value, stamp, cases)
    for total in ("tests", "failures", "errors", "skipped"):
        root.set(total, str(sum(int(suite.get(total, "0")) for suite in root)))
    root.set("time", units.number(max(0.0, report.finished - report.started)))
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _suite(root: Xml.Element, name: str, stamp: str, cases: list[Xml.Element]) -> None:
    suite = Xml.SubElement(root, "testsuite", name=name, timestamp=stamp, tests=str(len(cases)))
    for total, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(total, str(sum(case.find(tag) is not None for case in cases)))
    suite.extend(cases)


def _gate(seen: View, lang: Lang) -> Xml.Element:
    case = Xml.Element("testcase", classname="gate", name=labels.GATE_CASE.to(lang))
    reasons = "\n".join(reason.to(lang) for reason in seen.because)
    _outcome(case, seen.status, seen.code_means.to(lang), reasons)
    return case


def _results(item: Item) -> list[Result | None]:
    return list(item.results) or [None]


def _case(item: Item, result: Result | None, lang: Lang) -> Xml.Element:
    where = "" if result is None else f" [{result.where.to(lang)}]"
    case = Xml.Element("testcase", classname=f"{item.kind.value}.{item.id}", name=item.title.to(lang) + where)
    if result is None:
        _outcome(case, Status.UNKNOWN, item.brief.to(lang), "")
        return case
    told = [
        (labels.OBSERVED, result.observed),
        (labels.EXPECTED, result.expected),
        (labels.DETAIL_SHORT, result.detail),
    ]
    told += [(labels.REASON_LABEL, result.reason), (labels.CRITERION, item.criterion)]
    told += [(labels.SUPPRESSED, result.suppressed)]
    told += [(labels.METHOD, item.method), (labels.SUGGESTION, item.suggestion), (labels.ACTION_LABEL, result.action)]
    words = [(label, value.to(lang) if isinstance(value, Text) else value) for label, value in told if value]
    body = "\n".join(f"{label.to(lang)}: {text}" for label, text in words)
    if result.suppressed is not None:
        said = f"{labels.SUPPRESSED.to(lang)}, {result.suppressed.to(lang)}"
        Xml.SubElement(case, "skipped", message=said, type=result.status.value).text = body
    else:
        _outcome(case, result.status, result.brief.to(lang), body)
    return case


_TAG = {Status.FAIL: "failure", Status.UNKNOWN: "error", Status.SKIP: "skipped", Status.NA: "skipped"}


def _outcome(case: Xml.Element, status: Status, message: str, body: str) -> None:
    if status in _TAG:
        Xml.SubElement(case, _TAG[status], message=message, type=status.value).text = body
    elif status is Status.WARN:
        Xml.SubElement(case, "system-out").text = f"WARN: {message}\n{body}"
