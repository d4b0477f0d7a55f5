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
        "--library",
        choices=("auto", "mpi", "nccl", "hccl", "hccl-test", "loopback"),
        help=Text(
            "the library, or the vendor's hccl_test (default: the library of the cards, and MPI)",
            "通信库，或厂商的 hccl_test（默认：加速卡对应的库，以及 MPI）",
        ),
    )
    group.add(
        "--hccl-test",
        metavar="DIR",
        help=Text(
            "of --library hccl-test: where its programs are (default: tools/hccl_test/bin of CANN)",
            "--library hccl-test 的程序目录（默认 CANN 的 tools/hccl_test/bin）",
        ),
    )
    group.add(
        "--dtype",
        metavar="TYPE[,TYPE]",
        type=words.names,
        dest="dtypes",
        help=Text("types of elements (default float32)", "数据类型（默认 float32）"),
    )
    group.add(
        "--reduction",
        metavar="OP[,OP]",
        type=words.names,
        dest="reductions",
        help=Text(
            "sum, prod, max, min, avg, premulsum (default sum)",
            "归约方式 sum、prod、max、min、avg、premulsum（默认 sum）",
        ),
    )
    group.add(
        "--placement",
        choices=("out", "in", "both"),
        help=Text("into another buffer, in place, or both (default out)", "异地、原地或两者（默认异地 out）"),
    )
    group.add(
        "--root-rank",
        metavar="RANK",
        type=words.number,
        help=Text("root of broadcast and the like (default 0)", "广播等操作的根（默认 0）"),
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
        help=Text("largest size (default 64M, on cards 1G)", "最大数据量（默认 64M，加速卡上 1G）"),
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
    group.add(
        "-i",
        metavar="SIZE",
        type=words.size,
        dest="step_bytes",
        help=Text("step between sizes, instead of a factor", "数据量递增步长（代替倍数）"),
    )
    group.add("-w", metavar="N", type=words.positive, dest="warmup", help=Text("warm-up iterations", "预热次数"))
    group.add(
        "--cards",
        metavar="N",
        type=words.positive,
        help=Text("GPUs or NPUs of each node (default: all)", "每节点使用的卡数（默认全部）"),
    )
    group.add("--graph", action="store_true", help=Text("also as CUDA graphs", "同时以 CUDA graph 方式测量"))
    group.add(
        "--registered",
        action="store_true",
        help=Text("with buffers registered with the library", "使用向通信库注册的缓冲区"),
    )
    group.add(
        "--sharp",
        choices=("auto", "on", "off", "both"),
        help=Text(
            "NCCL with SHARP, without, or one after the other (default: as NCCL has it)",
            "NCCL 启用、禁用 SHARP，或先后各测一次（默认由 NCCL 决定）",
        ),
    )
    group.add(
        "--find-slow",
        action="store_true",
        help=Text(
            "split the group until the node, card or link that makes it slow is named",
            "逐步拆分分组，定位使其变慢的节点、加速卡或链路",
        ),
    )
    group.add(
        "--sweep",
        metavar="VAR=V,V",
        action="append",
        default=[],
        help=Text(
            "find the best value of an environment variable, each in fresh processes; may be repeated",
            "寻找环境变量的最佳取值，每个取值使用新进程；可重复使用",
        ),
    )
    group.add(
        "--rounds",
        metavar="N",
        type=words.positive,
        help=Text("of --sweep: how often each value is tried (default 3)", "--sweep 每个取值的轮数（默认 3）"),
    )
    group.add(
        "--rehearse",
        metavar="late:RANK:TIME",
        type=words.rehearsal,
        help=Text(
            "make a rank come late on purpose, to see that it is found (late:3:1ms)",
            "演练：让某个进程故意晚到，以确认能被发现（late:3:1ms）",
        ),
    )


def main(parser: Parser, argv: Sequence[str], lang: Lang) -> int:
    own(parser)
    options.choosing(parser)
    options.launching(parser)
    options.judging(parser)
    options.common(parser, root=False)
    args = options.parse(parser, argv)
    if args.sweep:
        from cwai_bench.cli import sweep

        return sweep.main(args, argv, options.lang_of(args, lang))
    from cwai_bench.cli.execute import execute, left_code

    return left_code(execute(args, "collective", argv, lang, "collective"))
