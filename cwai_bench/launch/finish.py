"""The end of a run, whoever gets to write it: merge the journals, judge, render, publish."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from cwai_bench import journal
from cwai_bench.errors import CwaiError
from cwai_bench.launch.order import Order, Outcome
from cwai_bench.model import Report, Run
from cwai_bench.text import Lang, Text


def judge_run(run: Run, order: Order) -> Report:
    """Judge a run by what was ordered. Raises UsageError for criteria or a baseline that do not load."""
    from cwai_bench import baseline, config, judge

    criteria = config.parse_criteria(order.criteria, order.criteria_name) if order.criteria else None
    against: baseline.Baseline | str | None = order.baseline_node or None
    if order.baseline:
        against = baseline.parse(order.baseline.encode(), order.baseline_node)
    return judge.judge(run, criteria=criteria, baseline=against, allow_unknown=order.allow_unknown)


def rendered(report: Report, formats: Iterable[str], lang: Lang) -> dict[str, bytes]:
    """``report.json``, ``report.html`` and the report in further ``formats``, by file name."""
    from cwai_bench.render import RENDERERS

    wanted = dict.fromkeys(["json", "html", *formats])
    return {f"report{RENDERERS[f].suffix}": RENDERERS[f].write(report, lang).encode() for f in wanted}


def conclude(files: dict[str, bytes], order: Order, stopped: int = 0) -> Outcome:
    """``files``: journal name → content, that of the absent nodes among them; ``stopped``: the signal by which a person
    stopped the run.

    A store that refuses does not lose the run: the outcome carries the summary, ``trouble`` says what is not on disk,
    and a verdict that nobody can read later is no verdict (exit code 3 instead of 0).
    """
    from cwai_bench import render

    run = journal.merge([journal.parse(data, name) for name, data in files.items()], stopped=stopped)
    report = judge_run(run, order)
    published = rendered(report, order.formats, order.lang)
    content = {f"journal/{name}": data for name, data in files.items()}
    content |= published
    content["order.json"] = msgspec.json.format(msgspec.json.encode(order), indent=1)
    trouble: list[Text] = []
    folder = ""
    html = ""
    try:
        folder = str(journal.publish(Path(order.store), run.run_id, content))
        html = f"{folder}/report.html"
    except CwaiError as e:
        trouble.append(Text(e.show("en"), e.show("zh")))
        trouble.append(
            Text(
                "  → the journals are kept on their nodes; once there is room: cwai-bench report {r}",
                "  → 日志保留在各节点上，待空间可用后执行：cwai-bench report {r}",
            ).fill(r=run.run_id)
        )
    if order.out:
        try:
            journal.publish(Path(order.out).parent, Path(order.out).name, dict(published))
            html = f"{order.out}/report.html"
        except CwaiError as e:
            trouble.append(Text(e.show("en"), e.show("zh")))
    code = report.gate.exit_code
    return Outcome(
        run_id=run.run_id,
        exit_code=3 if trouble and code == 0 else code,
        status=report.gate.status.value,
        folder=folder,
        html=html,
        summary=render.render(report, "text", order.lang),
        leave_out=report.gate.leave_out,
        trouble="\n".join(t.to(order.lang) for t in trouble),
        report=published["report.json"].decode() if order.with_report else "",
    )
