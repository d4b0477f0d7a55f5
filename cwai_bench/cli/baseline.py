"""``cwai-bench baseline record|show|diff``: a node that is as all should be, kept in a file."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cwai_bench.cli import options
from cwai_bench.cli.output import write_json
from cwai_bench.cli.parser import Parser
from cwai_bench.errors import UsageError
from cwai_bench.text import Lang, Text

if TYPE_CHECKING:
    from cwai_bench.baseline import Baseline
    from cwai_bench.model import Facts, Verdict

USAGE = "record FILE | show FILE | diff FILE [FILE]   [options]"

_VERBS = ("record", "show", "diff")


def main(parser: Parser, argv: Sequence[str], lang: Lang) -> int:
    parser.add("verb", metavar="record|show|diff", choices=_VERBS, help=Text("what to do", "操作"))
    parser.add("file", metavar="FILE", type=Path, help=Text("the baseline file", "基线文件"))
    parser.add(
        "other",
        metavar="FILE",
        type=Path,
        nargs="?",
        help=Text("diff: another baseline file (default: this node)", "diff：另一个基线文件（默认与本节点比较）"),
    )
    parser.add(
        "--from",
        metavar="RUN",
        dest="from_run",
        help=Text("take the facts of a saved run instead of reading a node", "使用已保存运行中的数据，而不读取节点"),
    )
    parser.add("--node", metavar="NODE", help=Text("with --from: which node of it", "配合 --from：其中的哪个节点"))
    options.common(parser)
    args = options.parse(parser, argv)
    lang = options.lang_of(args, lang)
    if args.verb == "record":
        return _record(args, lang)
    return _show(args, lang) if args.verb == "show" else _diff(args, lang)


def _record(args: argparse.Namespace, lang: Lang) -> int:
    from cwai_bench import baseline

    if args.other is not None:
        raise UsageError(Text("record takes one file", "record 只接受一个文件"))
    made = _of_a_node(args)
    baseline.save(args.file, made)
    line = Text("baseline of {n}, read {t}: {p}", "已保存 {n} 的基线（采集于 {t}）：{p}")
    sys.stdout.write(line.fill(n=made.node, t=_when(made), p=args.file).to(lang) + "\n")
    return 0


def _show(args: argparse.Namespace, lang: Lang) -> int:
    from cwai_bench import baseline

    base = baseline.load(args.file)
    verdicts = _judged(base.facts, None)
    if args.json:
        write_json(verdicts)
        return 0
    head = Text("baseline of {n}, read {t} by cwai-bench {v}", "{n} 的基线，由 cwai-bench {v} 采集于 {t}")
    sys.stdout.write(head.fill(n=base.node, t=_when(base), v=base.version).to(lang) + "\n")
    width = max(len(v.check) for v in verdicts)
    for v in verdicts:
        said = v.observed or (v.detail.to(lang) if v.detail else "?")
        sys.stdout.write(f"  {v.check:<{width}}  {' '.join(said.split())}\n")
    return 0


def _diff(args: argparse.Namespace, lang: Lang) -> int:
    """0: the same; 1: they differ; 3: something could not be compared, and nothing differs."""
    from cwai_bench import baseline
    from cwai_bench.model import Status

    base = baseline.load(args.file)
    other = baseline.load(args.other) if args.other is not None else _of_a_node(args)
    verdicts = _judged(other.facts, base)
    if args.json:
        write_json(verdicts)
    else:
        different = [v for v in verdicts if v.status is Status.FAIL]
        unknown = [v for v in verdicts if v.status is Status.UNKNOWN]
        same = sum(v.status is Status.PASS for v in verdicts)
        for v in different:
            sys.stdout.write(f"{v.check}\n")
            sys.stdout.write(f"  - {base.node}: {v.expected.to(lang) if v.expected else '?'}\n")
            sys.stdout.write(f"  + {other.node}: {v.observed}\n")
        for v in unknown:
            sys.stdout.write(f"{v.check}\n  ? {v.detail.to(lang) if v.detail else v.reason_code}\n")
        line = Text(
            "{s} items are the same, {d} differ, {u} could not be compared", "{s} 项一致，{d} 项不同，{u} 项无法比较"
        )
        sys.stdout.write(line.fill(s=same, d=len(different), u=len(unknown)).to(lang) + "\n")
    statuses = {v.status for v in verdicts}
    return 1 if Status.FAIL in statuses else 3 if Status.UNKNOWN in statuses or Status.PASS not in statuses else 0


def _of_a_node(args: argparse.Namespace) -> Baseline:
    """The baseline that this node makes, or a recorded one (``--root``), or one of a saved run (``--from``)."""
    from cwai_bench import baseline

    if args.from_run:
        from cwai_bench import history

        run = history.saved_run(args.from_run, options.store_of(args))
        node = args.node or (run.facts[0].node if len(run.facts) == 1 else "")
        return baseline.record(run, node)
    if args.node:
        raise UsageError(Text("--node goes with --from", "--node 须与 --from 一起使用"))
    from cwai_bench import checks, discover

    wanted = checks.sources_for(_items())
    return baseline.from_facts(discover.read_node("", args.root, wanted, time.monotonic() + 60.0))


def _items() -> list[str]:
    from cwai_bench.checks import CHECKS, ConsistencyCheck

    return [c.info.id for c in CHECKS.values() if isinstance(c, ConsistencyCheck)]


def _judged(facts: Facts, base: Baseline | None) -> list[Verdict]:
    import msgspec

    from cwai_bench.judge import check_facts

    # Two baselines may be of nodes of one name: they are still two.
    own = msgspec.structs.replace(facts, node=f"{facts.node}'") if base and base.node == facts.node else facts
    return check_facts([own], _items(), baseline=base)


def _when(base: Baseline) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(base.taken))
