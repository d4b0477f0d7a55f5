"""``cwai-bench rdma``: bandwidth and latency from NIC to NIC; over TCP where there is no RDMA, and it says so."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence

from cwai_bench.cli import options
from cwai_bench.cli import parser as words
from cwai_bench.cli.parser import Parser
from cwai_bench.errors import UsageError
from cwai_bench.text import Lang, Text

USAGE = "[options]"


def own(parser: Parser) -> None:
    """The options of this command alone."""
    group = parser.group(Text("what is measured", "测什么"))
    group.add(
        "--transport",
        choices=("auto", "verbs", "tcp", "loopback", "npu"),
        help=Text(
            "auto: verbs (RDMA) where every node has it, else tcp; npu: the RoCE ports of Ascend NPUs",
            "auto：每个节点均支持 RDMA 时用 verbs，否则用 tcp；npu：昇腾 NPU 的 RoCE 网口",
        ),
    )
    group.add("--kind", choices=("bandwidth", "latency", "both"), help=Text("default: both", "默认：both"))
    group.add(
        "--verb",
        metavar="V[,V]",
        type=words.verbs,
        help=Text(
            "of RDMA: write, read, send, or all (default all)", "RDMA 操作：write、read、send 或 all（默认 all）"
        ),
    )
    group.add("--direction", choices=("one-way", "two-way", "both"), help=Text("default: both", "默认：both"))
    group.add(
        "--sizes",
        metavar="S[,S]",
        type=words.sizes,
        help=Text("message sizes (64K,1M); 2..8M: each twice the one before", "消息大小（64K,1M）；2..8M 表示逐次加倍"),
    )
    group.add(
        "--streams",
        "--queue-pairs",
        metavar="N",
        type=words.positive,
        help=Text(
            "parallel streams; of RDMA, queue pairs of a connection (1 to 128)",
            "并行流数；RDMA 为每个连接的队列对数（1 到 128）",
        ),
    )
    group.add(
        "--duration", metavar="TIME", type=words.seconds, help=Text("of each bandwidth test", "每项带宽测试的时长")
    )
    group.add("--iterations", metavar="N", type=words.positive, help=Text("of each latency test", "每项时延测试的次数"))
    group.add("--warmup", metavar="N", type=words.positive, help=Text("iterations before timing", "计时前的预热次数"))
    group.add(
        "--spin", action="store_true", default=None, help=Text("wait by spinning, not by sleeping", "忙等而非阻塞等待")
    )
    _who(parser)
    _queue_pairs(parser)


def _who(parser: Parser) -> None:
    group = parser.group(Text("who with whom", "谁与谁配对"))
    group.add(
        "--pairs",
        metavar="HOW",
        type=words.pairs,
        help=Text(
            "ring (default), all, sample:K (each with K others), or full (every NIC with every NIC of other nodes);"
            " all but full: NICs of the same rail, all rails at once",
            "ring（默认）、all、sample:K（每个与另外 K 个）或 full（每张网卡与其他节点的每张网卡）；"
            "除 full 外均为同轨网卡配对，各轨并行",
        ),
    )
    for option, dest, en, zh in (
        ("--from", "from_ends", "these initiate (* is any node or any NIC)", "由这些端点发起（* 表示任意节点或网卡）"),
        ("--to", "to_ends", "these are whom they meet, in the same order", "与之配对的端点，按相同顺序"),
    ):
        group.add(option, dest=dest, metavar="NODE/NIC[,…]", type=words.ends(option), help=Text(en, zh))
    group.add(
        "--device",
        metavar="D[,D]",
        type=words.names,
        help=Text(
            "RDMA devices to use (mlx5_0,mlx5_4:1, mlx5_*; ^mlx5_9: all but it)",
            "使用的 RDMA 设备（mlx5_0,mlx5_4:1、mlx5_*；^mlx5_9 表示排除）",
        ),
    )
    group.add(
        "--interface",
        metavar="NIC",
        help=Text(
            "NIC name or address by which nodes meet (of TCP: that is measured)",
            "节点建立连接所用的网卡名或地址（TCP 即测此网卡）",
        ),
    )
    group.add(
        "--port",
        metavar="P",
        type=words.positive,
        help=Text("first TCP port to try (default 18515)", "首选 TCP 端口（默认 18515）"),
    )
    options.as_node(group)


def _queue_pairs(parser: Parser) -> None:
    group = parser.group(Text("queue pairs of RDMA", "RDMA 队列对"))
    options.gid_index(group)
    group.add(
        "--mtu",
        metavar="BYTES",
        type=words.positive,
        help=Text(
            "path MTU, 256 to 4096 (default: the largest of both ends)",
            "路径 MTU，256 到 4096（默认取两端支持的最大值）",
        ),
    )
    group.add(
        "--service-level",
        "--sl",
        metavar="N",
        type=words.number,
        help=Text("service level, 0 to 15", "服务等级，0 到 15"),
    )
    group.add(
        "--traffic-class",
        metavar="N",
        type=words.number,
        help=Text("of RoCE, 0 to 255: four times the DSCP", "RoCE 流量类别，0 到 255：DSCP 值的四倍"),
    )
    options.patience(group)
    group.add(
        "--depth",
        metavar="N",
        type=words.positive,
        help=Text("messages in flight (default 128)", "在途消息数（默认 128）"),
    )
    group.add(
        "--post-list",
        metavar="N",
        type=words.positive,
        help=Text("requests posted at once (default: chosen by size)", "一次提交的请求数（默认按大小选择）"),
    )
    group.add(
        "--inline",
        metavar="BYTES",
        type=words.number,
        help=Text(
            "largest message that travels in its request (default: chosen)", "随请求内联发送的最大消息（默认自动选择）"
        ),
    )
    group.add(
        "--memory",
        choices=("host", "gpu"),
        help=Text(
            "gpu: bandwidth from and to the memory of the NVIDIA GPU nearest to each NIC (default host)",
            "gpu：使用离各网卡最近的 NVIDIA GPU 的显存测带宽（默认 host，即主机内存）",
        ),
    )
    for option, en, zh in (
        ("--relaxed-ordering", "let PCIe reorder writes to memory", "允许 PCIe 乱序写内存"),
        ("--huge-pages", "buffers on huge pages", "缓冲区使用大页"),
        (
            "--cold",
            "buffers larger than the cache, each message in another place",
            "缓冲区大于缓存，每条消息使用不同位置",
        ),
        (
            "--like-nccl",
            "NCCL's own timeout (20), retries, one queue pair, GID, SL and class, and its NCCL_IB_* variables",
            "采用 NCCL 的超时（20）、重试、单队列对、GID、SL 与流量类别，并读取 NCCL_IB_* 变量",
        ),
    ):
        group.add(option, action="store_true", default=None, help=Text(en, zh))


NCCL = (
    ("qp_timeout", "NCCL_IB_TIMEOUT", 20),
    ("retries", "NCCL_IB_RETRY_CNT", 7),
    ("gid_index", "NCCL_IB_GID_INDEX", -1),
    ("traffic_class", "NCCL_IB_TC", 0),
    ("service_level", "NCCL_IB_SL", 0),
    ("streams", "NCCL_IB_QPS_PER_CONNECTION", 1),
)
"""Option, variable and NCCL's default (NVIDIA/nccl, src/transport/net_ib, NCCL_PARAM)."""


def like_nccl(args: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Give each option that is not given what NCCL would use. Raises UsageError for a variable that is no number."""
    for option, variable, default in NCCL:
        if getattr(args, option) is not None:
            continue
        text = environ.get(variable)
        try:
            setattr(args, option, int(text, 0) if text else default)
        except ValueError as error:
            raise UsageError(
                Text("{v}={x!r} is no number", "{v}={x!r} 不是数字").fill(v=variable, x=text),
                Text("correct it, or leave --like-nccl out", "请更正该变量，或去掉 --like-nccl"),
            ) from error
    if args.device is None and environ.get("NCCL_IB_HCA"):
        args.device = nccl_devices(environ["NCCL_IB_HCA"])


def nccl_devices(text: str) -> tuple[str, ...]:
    """``NCCL_IB_HCA`` as ``--device``: after ``^`` all but these; without ``=`` the beginnings of names (NCCL's user
    guide, Environment Variables)."""
    without = text.startswith("^")
    exact = text.removeprefix("^").startswith("=")
    found = []
    for word in words.names(text.removeprefix("^").removeprefix("=")):
        device, colon, port = word.partition(":")
        found.append(("" if exact else "*").join((device, colon + port)))
    return (("^" if without else "") + found[0], *found[1:])


def main(parser: Parser, argv: Sequence[str], lang: Lang) -> int:
    own(parser)
    options.choosing(parser)
    options.launching(parser)
    options.judging(parser)
    options.common(parser, root=False)
    args = options.parse(parser, argv)
    if args.like_nccl:
        like_nccl(args, os.environ)
    from cwai_bench.cli.execute import execute, left_code

    return left_code(execute(args, "rdma", argv, lang, "rdma"))
