"""What is said of the run as a whole: its environment, criteria that nothing met, privilege that was lacking."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cwai_bench.checks import (
    CHECKS,
    ConfigurableCheck,
    ConsistencyCheck,
)
from cwai_bench.config import Criteria
from cwai_bench.document import nearest
from cwai_bench.errors import UsageError
from cwai_bench.judge.alike import Alike
from cwai_bench.judge.consistency import held_by, same
from cwai_bench.judge.presence import NODES
from cwai_bench.model import (
    Run,
    Verdict,
)
from cwai_bench.text import Text

_SHARED = {
    "kernel": "same.kernel",
    "os": "same.os",
    "cpu": "same.cpu.model",
    "cpus": "same.cpu.topology",
    "memory": "same.memory",
}


def environment_of(run: Run, alike: Alike) -> tuple[dict[str, str], list[Text]]:
    """What all nodes share, and a note of what they do not."""
    shared = dict(run.environment)
    differing: list[str] = []
    checks = {key: CHECKS[id] for key, id in _SHARED.items() if id in CHECKS}
    asked = [partial(held_by, check) for check in checks.values() if isinstance(check, ConsistencyCheck)]
    for (key, check), answers in zip(checks.items(), alike.ask(asked), strict=True):
        assert isinstance(check, ConsistencyCheck)
        known = [a.said for a in answers if a.said.value is not None]
        if not known:
            continue
        if all(same(check, h.value, known[0].value) for h in known):
            shared[key] = known[0].shown(check)
        else:
            differing.append(key)
            shared.pop(key, None)
    if not differing:
        return shared, []
    words = ", ".join(differing)
    return shared, [Text("the nodes differ in: {w}", "各节点不一致的环境信息：{w}").fill(w=words)]


def idle_criteria(run: Run, criteria: Criteria | None) -> list[Text]:
    """A note of the criteria that nothing in this run was held against. Raises UsageError for items that take none."""
    if criteria is None:
        return []
    measured = {spec.info.id for spec in run.plan.probes}
    idle = []
    for item in criteria.items:
        if item in CHECKS and not isinstance(CHECKS[item], ConfigurableCheck):
            raise UsageError(
                Text(
                    "{f}: {i} has a rule of its own and takes no criterion", "{f}：{i} 使用内置规则，不能设定判据"
                ).fill(f=criteria.name, i=item),
                nearest(item, [c.info.id for c in CHECKS.values() if isinstance(c, ConfigurableCheck)]),
            )
        if item not in run.plan.checks and item not in measured:
            idle.append(item)
    known = {spec.info.id for spec in run.plan.scripts} | {out.what for out in run.plan.left_out}
    idle += [item for item in criteria.scripts if item not in known]
    if not idle:
        return []
    return [
        Text("criteria and scripts that had no part in this run: {i}", "本次运行中未用到的判据与脚本：{i}").fill(
            i=", ".join(idle)
        )
    ]


def privilege_note(verdicts: Sequence[Verdict]) -> list[Text]:
    """What privilege would have shown, said once."""
    denied = sorted({v.check for v in verdicts if v.reason_code == "permission" and v.check != NODES.id})
    if not denied:
        return []
    return [
        Text(
            "{n} items need more privilege; run as root to judge them: {l}",
            "{n} 项因权限不足未判定，可用 root 运行：{l}",
        ).fill(n=len(denied), l=", ".join(denied))
    ]
