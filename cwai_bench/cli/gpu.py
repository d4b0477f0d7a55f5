"""``cwai-bench gpu``: what the NVIDIA GPUs of each node reach, and whether they compute right."""

from __future__ import annotations

from collections.abc import Sequence

from cwai_bench.cli import options
from cwai_bench.cli import parser as words
from cwai_bench.cli.parser import Parser
from cwai_bench.text import Lang, Text

USAGE = "[options]"


def own(parser: Parser) -> None:
    """The options of this command alone."""
    group = parser.group(Text("what is measured", "测什么"))
    group.add(
        "--precisions",
        metavar="P[,P]",
        type=words.names,
        help=Text(
            "of matrix products: fp64, fp32, tf32, bf16, fp16, fp8 (default: all)",
            "矩阵乘的精度：fp64、fp32、tf32、bf16、fp16、fp8（默认全部）",
        ),
    )
    group.add(
        "--duration",
        metavar="TIME",
        type=words.seconds,
        help=Text(
            "of each figure (default 0.1s); corruption is looked for three times as long",
            "每项数据的测量时长（默认 0.1s）；静默错误检测为其三倍",
        ),
    )


def main(parser: Parser, argv: Sequence[str], lang: Lang) -> int:
    own(parser)
    options.choosing(parser)
    options.launching(parser)
    options.judging(parser)
    options.common(parser, root=False)
    args = options.parse(parser, argv)
    from cwai_bench.cli.execute import execute, left_code

    return left_code(execute(args, "gpu", argv, lang, "gpu"))
