"""``cwai-bench report RUN``: judge and render a saved run again. A run that was killed is finished here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cwai_bench.cli import options
from cwai_bench.cli.parser import Parser
from cwai_bench.errors import UsageError
from cwai_bench.text import Lang, Text

if TYPE_CHECKING:
    from cwai_bench.launch.order import Order
    from cwai_bench.model import Report

USAGE = "RUN [options]"


def main(parser: Parser, argv: Sequence[str], lang: Lang) -> int:
    parser.add(
        "run",
        metavar="RUN",
        help=Text("run id, 'last', run folder, or report.json", "运行编号、last、运行目录或 report.json"),
    )
    parser.add("--no-gate", action="store_true", help=Text("exit 0 whatever the verdict", "无论结论如何都以 0 退出"))
    options.judging(parser)
    options.common(parser, root=False)
    args = options.parse(parser, argv)
    lang = options.lang_of(args, lang)
    path = Path(args.run)
    if path.is_file():
        report = _read(path, args)
        folder = None
    else:
        from cwai_bench import history, journal
        from cwai_bench.launch import finish, keeper

        found = history.find(args.run, options.store_of(args))
        folder = found.folder
        holder = keeper.holder_of_node()
        still_running = holder is not None and holder.run_id == found.run_id
        files = journal.read_folder(folder)
        order = _order(args, folder, files[0].header.run_type, lang)
        report = finish.judge_run(journal.merge(files), order)
        if still_running:  # its keeper will write the report; one of ours would lie beside its journal for good
            folder = None
    _write(report, folder, args, lang)
    return 0 if args.no_gate else report.gate.exit_code


def judge_facts(args: argparse.Namespace, lang: Lang) -> int:
    """``check --from RUN``: the facts of a run judged now, by the rules given now, with the items chosen now. The run
    stays as it is; the report goes to the terminal and to ``--out``. Returns the exit code."""
    import msgspec

    from cwai_bench import history
    from cwai_bench.cli.execute import order_of
    from cwai_bench.launch import finish
    from cwai_bench.model import Plan
    from cwai_bench.plan import select

    for option in ("np", "hosts", "ssh", "root"):
        if getattr(args, option):
            raise UsageError(
                Text("--from reads no node: leave out --{o}", "--from 不采集节点：请去掉 --{o}").fill(o=option)
            )
    run = history.saved_run(args.from_run, options.store_of(args))
    chosen = [id for id in run.plan.checks if select([id], args.items, args.skip)]
    scripts = [spec for spec in run.plan.scripts if select([spec.info.id], args.items, args.skip)]
    if not chosen and not scripts:
        raise UsageError(
            Text("run {r} has none of these items", "运行 {r} 中没有这些检测项").fill(r=run.run_id),
            Text("see what it has: cwai-bench history show {r}", "查看其内容：cwai-bench history show {r}").fill(
                r=run.run_id
            ),
        )
    run = msgspec.structs.replace(
        run,
        run_type="check",
        plan=Plan(chosen, [], [], run.plan.expected, scripts=scripts),
        measurements=[],
        events=[],
    )
    report = finish.judge_run(run, order_of(args, "check", "check", [], lang, runs=False))
    _write(report, None, args, lang)
    return report.gate.exit_code


def _read(path: Path, args: argparse.Namespace) -> Report:
    from cwai_bench import render

    if args.criteria or args.profile or args.baseline:
        raise UsageError(
            Text("a report cannot be judged again, a run can", "报告无法重新判定，运行记录可以"),
            Text("give the run's id or folder", "请给出运行编号或目录"),
        )
    try:
        return render.report_from_json(path.read_bytes())
    except OSError as e:
        raise UsageError(Text("cannot read {p}: {e}", "无法读取 {p}：{e}").fill(p=path, e=e.strerror)) from e


def _order(args: argparse.Namespace, folder: Path, run_type: str, lang: Lang) -> Order:
    """The rules: those given now, else those of the run itself."""
    import msgspec

    from cwai_bench.cli.execute import order_of
    from cwai_bench.launch.order import Order

    now = order_of(args, run_type, "report", [], lang, runs=False)
    saved_path = folder / "order.json"
    if args.criteria or args.profile or args.baseline or not saved_path.exists():
        return now
    try:
        saved = msgspec.json.decode(saved_path.read_bytes(), type=Order)
    except msgspec.DecodeError as e:
        raise UsageError(
            Text("{p} cannot be read: {e}", "{p} 无法读取：{e}").fill(p=saved_path, e=e),
            Text("delete it to judge by the built-in rules", "删除该文件即可按内置规则判定"),
        ) from e
    return msgspec.structs.replace(
        now,
        criteria=saved.criteria,
        criteria_name=saved.criteria_name,
        baseline=saved.baseline,
        baseline_node=saved.baseline_node,
        allow_unknown=saved.allow_unknown or now.allow_unknown,
    )


def _write(report: Report, folder: Path | None, args: argparse.Namespace, lang: Lang) -> None:
    """To ``--out`` when given; else beside the journals of a run; and to the terminal."""
    from cwai_bench import journal
    from cwai_bench.cli.execute import laid_out
    from cwai_bench.launch.finish import rendered

    files = rendered(report, args.format or (), lang)
    out: Path | None = args.out
    target = out.expanduser().absolute() if out else folder
    if target is not None:
        target = journal.publish(target.parent, target.name, files)
    if args.json:
        sys.stdout.write(files["report.json"].decode())
        return
    sys.stdout.write(laid_out(report, args, lang, sys.stdout.isatty()).rstrip("\n") + "\n")
    if target is not None:
        for name in ["report.html", *(n for n in files if n not in ("report.html", "report.json"))]:
            sys.stdout.write(Text("report: {p}", "报告：{p}").fill(p=target / name).to(lang) + "\n")
