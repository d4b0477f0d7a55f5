"""``cwai-bench collective``: sweep of a collective library."""

from __future__ import annotations

from collections.abc import Sequence

from cwai_bench.cli import options
from cwai_bench.cli import parser as words
from cwai_bench.cli.parser import Parser
from cwai_bench.text import Lang, Text

USAGE = "[options]"


def own(parser: Parser) -> None:
    """The options of this command alone; letters as nccl-tests has them."""
    group = parser.group(Text("what is measured", "测什么"))
    group.add(
        "--operations",
        metavar="OP[,OP]",
        type=words.names,
        help=Text("all_reduce, all_gather, … (default: all)", "all_reduce、all_gather 等（默认全部）"),
    )
    group.add(
        "-b",
        metavar="SIZE",
        type=words.size,
        dest="min_bytes",
        help=Text("smallest size (default 8)", "最小数据量（默认 8）"),
    )
    group.add(
        "-e",
        metavar="SIZE",
        type=words.size,
        dest="max_bytes",
        help=Text("largest size (default 64M)", "最大数据量（默认 64M）"),
    )
    group.add(
        "-f",
        metavar="FACTOR",
        type=words.positive,
        dest="step_factor",
        help=Text("factor between sizes (default 2)", "数据量递增倍数（默认 2）"),
    )
    group.add(
        "-n",
        metavar="N",
        type=words.positive,
        dest="iterations",
        help=Text("iterations (default: by size)", "迭代次数（默认随数据量）"),
    )
    group.add("-w", metavar="N", type=words.positive, dest="warmup", help=Text("warm-up iterations", "预热次数"))


def main(parser: Parser, argv: Sequence[str], lang: Lang) -> int:
    own(parser)
    options.choosing(parser)
    options.launching(parser)
    options.judging(parser)
    options.common(parser, root=False)
    args = options.parse(parser, argv)
    from cwai_bench.cli.execute import execute, left_code

    return left_code(execute(args, "collective", argv, lang, "collective"))
