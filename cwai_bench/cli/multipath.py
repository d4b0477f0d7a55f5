"""``cwai-bench multipath``: transfers over several paths between two nodes, and what becomes of them when one fails."""

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
        "--transport",
        choices=("tcp", "verbs"),
        help=Text(
            "tcp (default), or verbs (RDMA): then the paths are RDMA ports",
            "tcp（默认）或 verbs（RDMA，此时路径为 RDMA 端口）",
        ),
    )
    group.add(
        "--policy",
        metavar="P[,P]",
        type=words.names,
        dest="policies",
        help=Text(
            "single, round_robin, equal, weighted, pull, which is ours (default: all)",
            "single、round_robin、equal、weighted、pull（本工具的策略）（默认全部）",
        ),
    )
    group.add(
        "--scenario",
        metavar="S[,S]",
        type=words.names,
        dest="scenarios",
        help=Text(
            "as_is (default), cut, degraded, flapping; all but the first are rehearsed only when asked for: the fault"
            " is planted on the fastest path within the transfer, never on a device",
            "as_is（默认）、cut、degraded、flapping；后三者仅在明确要求时演练：故障设于传输引擎内的最快路径，绝不触及设备",
        ),
    )
    group.add(
        "--size",
        metavar="SIZE",
        type=words.size,
        help=Text(
            "of a transfer, up to 1G (default: what takes --duration over all paths)",
            "每次传输的数据量，最大 1G（默认：全部路径传输 --duration 所需的量）",
        ),
    )
    group.add(
        "--duration",
        metavar="TIME",
        type=words.seconds,
        help=Text("of a transfer over all paths (default 1s)", "全部路径传输一次的时长（默认 1s）"),
    )
    group.add(
        "--repeat",
        metavar="N",
        type=words.positive,
        help=Text("how often each is measured (default 3)", "每项的测量次数（默认 3）"),
    )
    group.add(
        "--connections",
        metavar="N",
        type=words.positive,
        help=Text(
            "of each path, up to 128 (default: TCP 1, of a node's only path 4; RDMA 8 queue pairs)",
            "每条路径的连接数，最大 128（默认 TCP 为 1，仅有一条路径时为 4；RDMA 为 8 个队列对）",
        ),
    )
    group.add(
        "--stall",
        metavar="TIME",
        type=words.seconds,
        help=Text(
            "silence after which others take over what a path holds (default 0.1s, RDMA 0.005s)",
            "路径静默多久后由其他路径接替其所持数据（默认 0.1s，RDMA 为 0.005s）",
        ),
    )
    group.add(
        "--seed",
        metavar="N",
        type=words.positive,
        help=Text("of the random order; the report tells it", "随机顺序的种子，报告中会给出"),
    )
    group = parser.group(Text("who with whom", "谁与谁配对"))
    for option, dest, en, zh in (
        ("--from", "from_ends", "these send (default: each node to the next)", "发送端（默认每个节点发往下一个）"),
        ("--to", "to_ends", "these receive, in the same order", "接收端，按相同顺序"),
    ):
        group.add(option, dest=dest, metavar="NODE[/NIC][,…]", type=words.ends(option), help=Text(en, zh))
    group.add(
        "--interface",
        metavar="NIC[,NIC]",
        type=words.names,
        dest="interfaces",
        help=Text(
            "of TCP: NICs or addresses that are the paths (default: those of RDMA devices, else all with an address)",
            "TCP 中作为路径的网卡名或地址（默认 RDMA 设备的网卡，否则所有带地址的网卡）",
        ),
    )
    group.add(
        "--device",
        metavar="D[,D]",
        type=words.names,
        help=Text(
            "of RDMA: devices that are the paths (mlx5_0,mlx5_4:1, mlx5_*; ^mlx5_9: all but it; default: all)",
            "RDMA 中作为路径的设备（mlx5_0,mlx5_4:1、mlx5_*；^mlx5_9 表示排除；默认全部）",
        ),
    )
    options.as_node(group)
    group = parser.group(Text("queue pairs of RDMA", "RDMA 队列对"))
    options.gid_index(group)
    options.patience(group)


def main(parser: Parser, argv: Sequence[str], lang: Lang) -> int:
    own(parser)
    options.choosing(parser)
    options.launching(parser)
    options.judging(parser)
    options.common(parser, root=False)
    args = options.parse(parser, argv)
    from cwai_bench.cli.execute import execute, left_code

    return left_code(execute(args, "multipath", argv, lang, "multipath"))
