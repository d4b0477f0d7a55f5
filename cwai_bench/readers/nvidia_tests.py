"""What NVIDIA's own tests print: ``dcgmi diag -j`` and ``nvbandwidth -j``.

dcgmi: the layout is that of ``DCGM GPU Diagnostic`` (DCGM 2 and 3) and ``DCGM Diagnostic`` (DCGM 4), as NvvsCommon.h,
JsonResult.hpp and dcgmi/Diag.cpp of NVIDIA/DCGM have it. NVIDIA publishes no schema and says so ("Diagnostic Errors",
DCGM documentation), so whatever is not as known is Unreadable. nvbandwidth: json_output.cpp of NVIDIA/nvbandwidth.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from cwai_bench.readers import Unreadable

_STATUSES = {
    "pass": "pass",
    "passed": "pass",
    "fail": "fail",
    "failed": "fail",
    "warn": "warn",
    "warning": "warn",
    "skip": "skip",
    "skipped": "skip",
    "not run": "skip",
    "notrun": "skip",
}
SAID_LIMIT = 300
RESULTS_LIMIT = 20_000


class DiagResult(NamedTuple):
    """``status``: pass, warn, fail or skip. ``cards``: the GPU ids that it is about, none for what is not of a GPU."""

    category: str
    test: str
    cards: tuple[str, ...]
    status: str
    said: str


def dcgm_diag(text: str) -> list[DiagResult]:
    """Every result of a ``dcgmi diag -j``. Raises Unreadable, also with DCGM's own reason for having none."""
    found = _first_object(text)
    root = found.get("DCGM Diagnostic", found.get("DCGM GPU Diagnostic"))
    if not isinstance(root, dict):
        raise Unreadable("expected an object called DCGM Diagnostic or DCGM GPU Diagnostic")
    trouble = root.get("runtime_error")
    if trouble:
        raise Unreadable(f"DCGM says: {str(trouble)[:SAID_LIMIT]}")
    results: list[DiagResult] = []
    for category in _objects(root.get("test_categories"), "test_categories"):
        for test in _objects(category.get("tests"), "tests"):
            for result in _objects(test.get("results"), "results"):
                results.append(_result(_word(category, "category"), _word(test, "name"), result))
                if len(results) > RESULTS_LIMIT:
                    raise Unreadable(f"more than {RESULTS_LIMIT} results")
    if not results:
        raise Unreadable("it holds no result")
    return results


def _result(category: str, test: str, result: dict[str, object]) -> DiagResult:
    status = _STATUSES.get(_word(result, "status").strip().lower())
    if status is None:
        raise Unreadable(f"{test}: the status {_word(result, 'status')[:40]!r} is not known")
    cards: tuple[str, ...] = ()
    if "entity_group" in result:
        if result["entity_group"] == "GPU":
            cards = (str(result.get("entity_id"))[:20],)
    else:
        named = result.get("gpu_ids", result.get("gpu_id", ""))
        cards = tuple(part.strip()[:20] for part in str(named).split(",")[:64] if part.strip())
    told = [_said(result.get("warnings")), _said(result.get("info"))]
    return DiagResult(category, test, cards, status, "; ".join(filter(None, told))[:SAID_LIMIT])


def _said(value: object) -> str:
    """A text, a list of texts, or a list of objects whose ``warning`` is one."""
    parts = value if isinstance(value, list) else [value]
    texts = [part.get("warning", "") if isinstance(part, dict) else part for part in parts[:8]]
    return "; ".join(text.strip() for text in texts if isinstance(text, str) and text.strip())


def nvbandwidth(text: str, test: str) -> dict[tuple[int, int], float]:
    """The matrix of the testcase ``test``, in bytes per second by row and column; what was not measured (``N/A``) is
    left out. Raises Unreadable, also with the error that nvbandwidth gave."""
    root = _first_object(text).get("nvbandwidth")
    if not isinstance(root, dict):
        raise Unreadable("expected an object called nvbandwidth")
    if root.get("error"):
        raise Unreadable(f"nvbandwidth says: {str(root['error'])[:SAID_LIMIT]}")
    case = next((c for c in _objects(root.get("testcases"), "testcases") if c.get("name") == test), None)
    if case is None:
        raise Unreadable(f"there is no testcase {test}")
    if case.get("status") != "Passed":
        raise Unreadable(f"{test}: {str(case.get('status'))[:40]} {str(case.get('error') or '')[:SAID_LIMIT]}".strip())
    if not _word(case, "bandwidth_description").rstrip().endswith("(GB/s)"):
        raise Unreadable(f"{test}: the figures are not in GB/s")
    rows = case.get("bandwidth_matrix")
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows) or len(rows) > 1024:
        raise Unreadable(f"{test}: bandwidth_matrix is no matrix")
    found: dict[tuple[int, int], float] = {}
    for i, row in enumerate(rows):
        for j, cell in enumerate(row[:1024]):
            if cell == "N/A":
                continue
            try:
                value = float(cell)
            except (TypeError, ValueError):
                raise Unreadable(f"{test}: {str(cell)[:40]!r} is no bandwidth") from None
            if not 0 <= value < 1e6:
                raise Unreadable(f"{test}: {str(cell)[:40]!r} is no bandwidth")
            found[i, j] = value * 1e9
    return found


def _first_object(text: str) -> dict[str, object]:
    """The first JSON object in ``text``: both tools may print warnings before it, and something behind."""
    start = text.find("{")
    if start < 0:
        raise Unreadable("expected JSON")
    try:
        found, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError) as e:
        raise Unreadable(f"expected JSON: {str(e)[:100]}") from None
    assert isinstance(found, dict)  # it begins with a brace
    return found


def _objects(value: object, name: str) -> list[dict[str, object]]:
    """A list of objects; DCGM 3 has nulls between them."""
    if not isinstance(value, list):
        raise Unreadable(f"{name} is no list")
    found = [part for part in value if part is not None]
    if not all(isinstance(part, dict) for part in found):
        raise Unreadable(f"{name} holds something that is no object")
    return found


def _word(found: dict[str, object], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str):
        raise Unreadable(f"{name} is no text")
    return value[:200]
