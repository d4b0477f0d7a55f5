"""What a person's own script said, by the person's rule: exit code and output into one verdict."""

from __future__ import annotations

import re

from cwai_bench.checks import DoesNotApply, FactView, NodeCheck, NotKnown, Outcome
from cwai_bench.document import node_names
from cwai_bench.model import Reading, ScriptSpec, Status
from cwai_bench.text import Text, plain

LINE_LIMIT = 4096
"""Characters of a line that a pattern is searched in: how long a search takes grows with it, without bound for some."""
WORSE_FIRST = (Status.FAIL, Status.UNKNOWN, Status.WARN, Status.SKIP, Status.PASS)


def script_check(spec: ScriptSpec) -> NodeCheck:
    """The item of a script: it judges one reading of a node, as any other check does."""
    return NodeCheck(spec.info, (), lambda facts: _judge(spec, facts), seen="container")


def _judge(spec: ScriptSpec, facts: FactView) -> Outcome:
    if spec.nodes and facts.node not in node_names(spec.nodes):
        raise DoesNotApply(
            Text("not one of its nodes: {n}", "不在其节点范围内：{n}").fill(n=spec.nodes), "not_selected"
        )
    reading = facts.script(spec.info.id)
    if reading.status == "timeout":
        raise NotKnown("timeout", Text("it did not end in time: {d}", "未在限时内结束：{d}").fill(d=reading.detail))
    code = reading.exit_code if reading.exit_code is not None else 0
    if code < 0:
        raise NotKnown("error", Text("it was ended by signal {n}", "被信号 {n} 终止").fill(n=-code))
    by_code = dict(spec.exits).get(code, spec.other)
    by_output, why = _by_output(spec, reading, demanded=by_code is Status.PASS)
    if WORSE_FIRST.index(by_output) < WORSE_FIRST.index(by_code):
        status, detail = by_output, why
    else:
        status, detail = by_code, Text("exit code {c}", "退出码 {c}").fill(c=code)
    if status is Status.UNKNOWN:
        raise NotKnown("error" if status is by_code else "parse", detail)
    if status is Status.SKIP:
        raise DoesNotApply(detail)
    return Outcome(status, _first_line(reading) or f"exit code {code}", detail)


def _by_output(spec: ScriptSpec, reading: Reading, *, demanded: bool) -> tuple[Status, Text]:
    """What the output says, and why. A line that nobody could see is no line that is not there. ``demanded``: that a
    line says it passed, where there is a pattern for that; an exit code that says something else needs none."""
    if not spec.output:
        return Status.PASS, plain("")
    lines = reading.text.splitlines()
    unseen = reading.truncated or any(len(line) > LINE_LIMIT for line in lines)
    found: dict[Status, str] = {}
    for status, pattern in spec.output:
        compiled = re.compile(pattern)
        hit = next((line for line in lines if compiled.search(line[:LINE_LIMIT])), None)
        if hit is not None:
            found[status] = hit.strip()[:200]
    worst = min(found, key=WORSE_FIRST.index, default=Status.PASS)
    if unseen and any(WORSE_FIRST.index(status) < WORSE_FIRST.index(worst) for status, _ in spec.output):
        return Status.UNKNOWN, Text("its output is too large to be searched whole", "输出过大，无法完整检索")
    if (
        demanded
        and worst is Status.PASS
        and worst not in found
        and any(status is Status.PASS for status, _ in spec.output)
    ):
        return Status.UNKNOWN, Text("no line of its output says that it passed", "输出中没有表示通过的行")
    return worst, Text("its output: {l}", "输出：{l}").fill(l=found.get(worst, ""))


def _first_line(reading: Reading) -> str:
    """The first line of the output that says anything."""
    return next((line.strip() for line in reading.text.splitlines() if line.strip()), "")


__all__ = ["script_check"]
