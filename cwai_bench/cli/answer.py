"""``cwai-bench answer``: started by ``check --ssh`` on each node, and by nobody else."""

from __future__ import annotations

from collections.abc import Sequence

from cwai_bench.cli.parser import Parser
from cwai_bench.text import Lang

USAGE = ""


def main(parser: Parser, argv: Sequence[str], lang: Lang) -> int:
    parser.parse(argv)
    from cwai_bench.launch import answer

    return answer.main()
