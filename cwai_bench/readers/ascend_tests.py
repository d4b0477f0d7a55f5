"""What Huawei's own tests of its NPUs print: ``ascend-dmi --dg --se SCENE -q``.

The tool is closed. Format and words are those of Huawei's user guide of MindCluster ToolBox (6.0.0 to 26.1.0, last seen
of 2026), toolboxug_0165 "One-Click Diagnosis"; each test's page has a table of what its words mean (toolboxug_0143 to
0164, 0181, 0209, 0245). The lines that begin with ``***`` are as in the AI Core cases of Huawei's fault guide of CANN.
A word that is in none of these tables makes the whole unreadable.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cwai_bench.readers import Unreadable

_STATUSES = {
    "PASS": "pass",
    "HEALTH": "pass",
    # Only of the network: a hint, which the tables tell apart from "healthy".
    "INFO": "warn",
    "WARN": "warn",
    "GENERAL_WARN": "warn",
    # As npu-smi's Alarm: the tables send the reader to Huawei's engineers.
    "IMPORTANT_WARN": "fail",
    "EMERGENCY_WARN": "fail",
    "FAIL": "fail",
    "SKIP": "skip",
}
_COULD_NOT_RUN = {("signalQuality", "FAIL")}
"""What its table explains with one thing alone: that the test could not be carried out."""
_HEAD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}:")
_WORD = re.compile(r"[A-Z][A-Z_]{0,30}")
_NOTE = "***"
SAID_LIMIT = 300
TESTS_LIMIT = 1000
_LINES = 20_000


class DmiTest(NamedTuple):
    """``word`` is the tool's, ``status`` what it stands for: pass, warn, fail, skip, or error (it could not run)."""

    name: str
    word: str
    status: str
    said: str


def diagnosis(text: str) -> list[DmiTest]:
    """The tests of one run. Raises Unreadable, also with what the tool said in place of results."""
    lines = text.replace("\r\n", "\n").split("\n")[:_LINES]
    start = next((i for i, line in enumerate(lines) if line.strip() == "Summary:"), None)
    if start is None:
        said = next((line.strip() for line in lines if line.strip()), "nothing")
        raise Unreadable(f"expected Summary, it says: {said[:150]}")
    if not text.endswith("\n"):
        raise Unreadable("it ends in the middle of a line")
    found: list[DmiTest] = []
    group, name = "", ""
    for line in lines[start:]:
        told = line.strip()
        if not told:
            continue
        if line[0] not in " \t" and _HEAD.fullmatch(told):
            _complete(name)
            group, name = told, ""
        elif group == "Summary:" or not group:
            continue  # architecture, model and time of the run
        elif _HEAD.fullmatch(told):
            _complete(name)
            name = told[:-1]
        elif name:
            found.append(_test(name, told))
            name = ""
            if len(found) > TESTS_LIMIT:
                raise Unreadable(f"more than {TESTS_LIMIT} tests")
        elif found:
            last = found[-1]
            note = told.removeprefix(_NOTE).strip()
            found[-1] = last._replace(said=f"{last.said} {note}".strip()[:SAID_LIMIT])
        else:
            raise Unreadable(f"{told[:80]!r} belongs to no test")
    _complete(name)
    if not found:
        raise Unreadable("it holds no result")
    return found


def _complete(name: str) -> None:
    if name:
        raise Unreadable(f"{name} has no result")


def _test(name: str, word: str) -> DmiTest:
    status = _STATUSES.get(word) if _WORD.fullmatch(word) else None
    if status is None:
        raise Unreadable(f"{name}: the result {word[:40]!r} is not known")
    return DmiTest(name, word, "error" if (name, word) in _COULD_NOT_RUN else status, "")
