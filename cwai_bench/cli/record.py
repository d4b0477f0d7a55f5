"""``cwai-bench record DIR``: write down all that the checks read on this node, for ``--root DIR`` elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from cwai_bench.cli import options
from cwai_bench.cli.parser import Parser
from cwai_bench.errors import UsageError
from cwai_bench.text import Lang, Text

USAGE = "DIR [options]"


def main(parser: Parser, argv: Sequence[str], lang: Lang) -> int:
    parser.add(
        "directory", metavar="DIR", type=Path, help=Text("a folder that does not exist yet", "一个尚不存在的目录")
    )
    options.common(parser, root=False)
    args = options.parse(parser, argv)
    lang = options.lang_of(args, lang)
    directory: Path = args.directory
    try:
        taken = directory.exists() and (not directory.is_dir() or any(directory.iterdir()))
    except OSError as e:
        raise UsageError(
            Text("cannot write into {p}: {e}", "无法写入 {p}：{e}").fill(p=directory, e=e.strerror),
            Text("choose a folder that you can write", "请选择可写的目录"),
        ) from e
    if taken:
        raise UsageError(
            Text("{p} is there already", "{p} 已存在").fill(p=directory),
            Text("give a folder that does not exist yet", "请给出一个尚不存在的目录"),
        )
    from cwai_bench import checks, discover

    facts = discover.record_node(directory, checks.sources_for(list(checks.CHECKS)))
    line = Text("recorded {n}: {c} sources in {p}", "已录制 {n}：{c} 个来源，位于 {p}")
    sys.stdout.write(line.fill(n=facts.node, c=len(facts.readings), p=directory).to(lang) + "\n")
    return 0
