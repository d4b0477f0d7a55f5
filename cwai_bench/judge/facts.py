"""Facts against the checks: which rule judges what, on all nodes at once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from cwai_bench.baseline import Baseline
from cwai_bench.checks import (
    CHECKS,
    Check,
    ConfigurableCheck,
    ConsistencyCheck,
    FactView,
    NodeCheck,
    NotKnown,
    Value,
)
from cwai_bench.checks.kind import node_kind
from cwai_bench.checks.script import script_check
from cwai_bench.config import Criteria, Criterion
from cwai_bench.errors import UsageError
from cwai_bench.judge.alike import Alike, Answer
from cwai_bench.judge.consistency import Held, consistency_verdicts, held_by
from cwai_bench.judge.found import ALL, OBSERVED_LIMIT, Found, attempt, lost_nodes, unknown_check, verdicts_of
from cwai_bench.model import Facts, ScriptSpec, Status, Verdict
from cwai_bench.render.nodeset import fold
from cwai_bench.render.units import gigabits, size
from cwai_bench.sources import Container
from cwai_bench.text import Text

NAMES_SHOWN = 8


def check_facts(
    facts: Sequence[Facts],
    ids: Iterable[str],
    *,
    scripts: Sequence[ScriptSpec] = (),
    nodes: Sequence[str] = (),
    criteria: Criteria | None = None,
    baseline: str | Baseline | None = None,
) -> list[Verdict]:
    """Judge the checks ``ids`` and the person's ``scripts`` on ``facts``. ``nodes``: all that should have facts
    (those of ``facts`` when empty).

    Raises UsageError when ``baseline`` names none of them.
    """
    return check_alike(Alike(facts, nodes), ids, scripts=scripts, criteria=criteria, baseline=baseline)


def check_alike(
    alike: Alike,
    ids: Iterable[str],
    *,
    scripts: Sequence[ScriptSpec] = (),
    criteria: Criteria | None = None,
    baseline: str | Baseline | None = None,
) -> list[Verdict]:
    """As ``check_facts``."""
    if isinstance(baseline, str) and baseline not in alike.names:
        near = difflib.get_close_matches(baseline, alike.names, 1, 0.4)
        raise UsageError(
            Text("the baseline {b!r} is no node of this run", "基线 {b!r} 不是本次运行中的节点").fill(b=baseline),
            Text("did you mean {n}?", "是否想用 {n}？").fill(n=near[0])
            if near
            else Text("its nodes: {n}", "其节点：{n}").fill(n=fold(alike.names)),
        )
    ids = [*ids, *(spec.info.id for spec in scripts)]
    checks = {id: CHECKS[id] for id in ids if id in CHECKS} | {spec.info.id: script_check(spec) for spec in scripts}
    questions: dict[str, Callable[[FactView], Any]] = {"": node_kind}
    for id, check in checks.items():
        if (question := _question(check, criteria)) is not None:
            questions[id] = question
    told: dict[str, list[Answer[Any]]] = dict(zip(questions, alike.ask(list(questions.values())), strict=True))
    kinds = [""] * len(alike.names)
    for answer in told[""]:
        for i in answer.at:
            kinds[i] = answer.said
    verdicts: list[Verdict] = []
    for id in ids:
        if id not in checks:
            verdicts += unknown_check(id, alike)
            continue
        check = checks[id]
        if id not in told:
            reason = Text("no criterion was given for it", "未设定判据")
            verdicts.append(
                Verdict(id, check.info.kind, ALL, [], Status.SKIP, detail=reason, reason_code="no_criterion")
            )
        elif isinstance(check, ConsistencyCheck):
            verdicts += consistency_verdicts(check, told[id], kinds, alike, baseline)
        else:
            raw = check.judge if isinstance(check, NodeCheck) else check.values
            verdicts += verdicts_of(check.info, told[id] + lost_nodes(alike), alike, raw)
    return verdicts


def _question(check: Check, criteria: Criteria | None) -> Callable[[FactView], Found | Held] | None:
    """What a check is asked of every node; None when a criterion would be needed and there is none."""
    if isinstance(check, NodeCheck):
        return attempt(partial(_node, check))
    if isinstance(check, ConsistencyCheck):
        return partial(held_by, check)
    criterion = criteria.get(check.info.id) if criteria is not None else None
    return None if criterion is None else attempt(partial(_against, criterion, check))


def _node(check: NodeCheck, view: FactView) -> Found:
    outcome = check.judge(view)
    detail = _with_container(outcome.detail, check.seen, view)
    return Found(outcome.status, outcome.observed[:OBSERVED_LIMIT], outcome.expected, detail)


def _fits_none(criterion: Criterion, names: list[str]) -> Text:
    """That a criterion picks none of what is here, and what it could pick."""
    wanted = next((str(pattern) for key, pattern in criterion.where if key == "name"), None)
    if wanted is None:
        return Text("there is none here", "此处没有该对象")
    near = difflib.get_close_matches(wanted, names, 1, 0.6)
    shown = ", ".join(names[:NAMES_SHOWN]) + (" …" if len(names) > NAMES_SHOWN else "")
    none = Text("where.name = {w!r} fits none of: {n}", "where.name = {w!r} 不匹配以下任何一项：{n}").fill(
        w=wanted, n=shown or "-"
    )
    if not near:
        return none
    return Text("{t}; did you mean {m!r}?", "{t}；是否想用 {m!r}？").fill(t=none, m=near[0])


def _against(criterion: Criterion, check: ConfigurableCheck, view: FactView) -> Found:
    found = check.values(view)
    values = dict(found) if isinstance(found, Mapping) else {"": found}
    values = {name: value for name, value in values.items() if not name or criterion.applies_to(name)}
    if not values:
        raise NotKnown("absent", _fits_none(criterion, sorted(found if isinstance(found, Mapping) else ())))
    if not criterion.fits(check.unit):
        raise NotKnown("not_comparable", Text("the criterion is not in {u}", "判据的单位不是 {u}").fill(u=check.unit))
    bad = {name: value for name, value in values.items() if not criterion.holds(value)}
    shown = bad or values
    observed = ", ".join(f"{name} {show(v, check.unit)}".strip() for name, v in sorted(shown.items()))
    detail = _with_container(None, check.seen, view)
    return Found(Status.FAIL if bad else Status.PASS, observed[:OBSERVED_LIMIT], criterion.words(), detail)


_OF_CONTAINER = Text(
    "seen from inside a container ({k}): this is the container's answer, not the host's",
    "在容器（{k}）内检测：结果反映容器而非宿主机",
)


def _with_container(detail: Text | None, seen: str, view: FactView) -> Text | None:
    """``detail``, and, for what is the container's own, that it is."""
    if seen != "container":
        return detail
    try:
        kind = view.call("container", Container).kind
    except NotKnown:
        return detail
    if not kind:
        return detail
    note = _OF_CONTAINER.fill(k=kind)
    return note if detail is None else Text(f"{detail.en}; {note.en}", f"{detail.zh}；{note.zh}")


def show(value: Value, unit: str) -> str:
    """A value for a person: ``512 GiB``, ``100 Gb/s``, ``1.5 s``, ``unlimited``."""
    if isinstance(value, str):
        return value
    if value == float("inf"):
        return "unlimited"
    if unit == "B":
        return size(int(value))
    if unit == "bit/s":
        return f"{gigabits(value / 8)} Gb/s"
    return f"{value:g} s" if unit == "s" else f"{value:g}"
