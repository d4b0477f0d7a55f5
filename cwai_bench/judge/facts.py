"""Facts against the checks: which rule judges what, node by node."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from cwai_bench.baseline import Baseline
from cwai_bench.checks import (
    CHECKS,
    ConfigurableCheck,
    FactView,
    NodeCheck,
    NotKnown,
    Value,
)
from cwai_bench.checks.kind import node_kind
from cwai_bench.checks.script import script_check
from cwai_bench.config import Criteria, Criterion
from cwai_bench.errors import UsageError
from cwai_bench.judge.alike import Alike
from cwai_bench.judge.consistency import consistency_verdicts
from cwai_bench.judge.found import ALL, OBSERVED_LIMIT, Found, unknown_check, verdict_of
from cwai_bench.model import (
    Facts,
    ScriptSpec,
    Status,
    Verdict,
)
from cwai_bench.render.nodeset import fold
from cwai_bench.render.units import gigabits, size
from cwai_bench.sources import Container
from cwai_bench.text import Text


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
    by_node = {f.node: f for f in facts}
    names = list(dict.fromkeys([*nodes, *by_node]))
    if isinstance(baseline, str) and baseline not in names:
        near = difflib.get_close_matches(baseline, names, 1, 0.4)
        raise UsageError(
            Text("the baseline {b!r} is no node of this run", "基线 {b!r} 不是本次运行中的节点").fill(b=baseline),
            Text("did you mean {n}?", "是否想用 {n}？").fill(n=near[0])
            if near
            else Text("its nodes: {n}", "其节点：{n}").fill(n=fold(names)),
        )
    verdicts: list[Verdict] = []
    alike = Alike(facts)
    kinds = {f.node: alike.ask("kind of node", f, node_kind) for f in facts}
    for id in ids:
        if id not in CHECKS:
            verdicts += [unknown_check(id, node) for node in names]
            continue
        check = CHECKS[id]
        if isinstance(check, NodeCheck):
            verdicts += [node_verdict(check, node, by_node.get(node), alike) for node in names]
        elif isinstance(check, ConfigurableCheck):
            criterion = criteria.get(id) if criteria is not None else None
            verdicts += configurable_verdicts(check, criterion, names, by_node, alike)
        else:
            verdicts += consistency_verdicts(check, names, by_node, kinds, alike, baseline)
    for script in map(script_check, scripts):
        verdicts += [node_verdict(script, node, by_node.get(node), alike) for node in names]
    return verdicts


_OF_CONTAINER = Text(
    "seen from inside a container ({k}): this is the container's answer, not the host's",
    "在容器（{k}）内检测：结果反映容器而非宿主机",
)


def node_verdict(check: NodeCheck, node: str, facts: Facts | None, alike: Alike) -> Verdict:
    def look(view: FactView) -> Found:
        outcome = check.judge(view)
        evidence = view.evidence(outcome.status)  # before the container is asked about, which is none
        return Found(
            outcome.status,
            outcome.observed[:OBSERVED_LIMIT],
            outcome.expected or check.info.criterion,
            _with_container(outcome.detail, check.seen, view),
            evidence=evidence,
        )

    return verdict_of(check.info, node, facts, look, alike)


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


def configurable_verdicts(
    check: ConfigurableCheck,
    criterion: Criterion | None,
    names: Sequence[str],
    by_node: Mapping[str, Facts],
    alike: Alike,
) -> list[Verdict]:
    info = check.info
    if criterion is None:
        reason = Text("no criterion was given for it", "未设定判据")
        return [Verdict(info.id, info.kind, ALL, "", Status.SKIP, detail=reason, reason_code="no_criterion")]

    def look(view: FactView) -> Found:
        assert criterion is not None
        found = check.values(view)
        values = dict(found) if isinstance(found, Mapping) else {"": found}
        values = {name: value for name, value in values.items() if not name or criterion.applies_to(name)}
        if not values:
            raise NotKnown("absent", Text("nothing here is what the criterion is about", "没有符合判据限定条件的对象"))
        if not criterion.fits(check.unit):
            raise NotKnown(
                "not_comparable",
                Text("the criterion is not in {u}", "判据的单位不是 {u}").fill(u=check.unit),
            )
        bad = {name: value for name, value in values.items() if not criterion.holds(value)}
        shown = bad or values
        status = Status.FAIL if bad else Status.PASS
        evidence = view.evidence(status)
        return Found(
            status,
            ", ".join(f"{name} {show(v, check.unit)}".strip() for name, v in sorted(shown.items()))[:OBSERVED_LIMIT],
            criterion.words(),
            _with_container(None, check.seen, view),
            evidence=evidence,
        )

    return [verdict_of(info, node, by_node.get(node), look, alike) for node in names]


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
