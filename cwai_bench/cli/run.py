"""``cwai-bench run``: the main job."""

from __future__ import annotations

from collections.abc import Sequence

from cwai_bench.cli import options
from cwai_bench.cli.parser import Parser
from cwai_bench.text import Lang

USAGE = "[options]"


def main(parser: Parser, argv: Sequence[str], lang: Lang) -> int:
    options.choosing(parser)
    options.launching(parser)
    options.judging(parser)
    options.common(parser)
    args = options.parse(parser, argv)
    from cwai_bench.cli.execute import execute, left_code

    return left_code(execute(args, "run", argv, lang, "run"))
