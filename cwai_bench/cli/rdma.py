"""``cwai-bench rdma``: bandwidth and latency from NIC to NIC; over TCP where there is no RDMA, and it says so."""

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
        choices=("auto", "verbs", "tcp", "loopback", "npu"),
        help=Text(
            "auto: verbs where there is a device, else tcp; npu: the RoCE ports of Ascend NPUs",
            "auto：有 RDMA 设备用 verbs，否则用 tcp；npu：昇腾 NPU 的 RoCE 网口",
        ),
    )
    group.add("--kind", choices=("bandwidth", "latency", "both"), help=Text("default: both", "默认：both"))
    group.add("--direction", choices=("one-way", "two-way", "both"), help=Text("default: both", "默认：both"))
    group.add("--sizes", metavar="S[,S]", type=words.sizes, help=Text("message sizes (64K,1M)", "消息大小（64K,1M）"))
    group.add("--streams", metavar="N", type=words.positive, help=Text("parallel streams", "并行流数"))
    group.add(
        "--duration", metavar="TIME", type=words.seconds, help=Text("of each bandwidth test", "每项带宽测试的时长")
    )
    group.add("--iterations", metavar="N", type=words.positive, help=Text("of each latency test", "每项时延测试的次数"))
    group.add("--warmup", metavar="N", type=words.positive, help=Text("iterations before timing", "计时前的预热次数"))
    group.add(
        "--port",
        metavar="P",
        type=words.positive,
        help=Text("first port to try (default 18515)", "首选端口（默认 18515）"),
    )
    group.add("--pairs", choices=("ring", "all"), help=Text("who with whom (default ring)", "配对方式（默认 ring）"))
    group.add("--interface", metavar="NIC", help=Text("NIC name or address to use", "使用的网卡名或地址"))
    group.add(
        "--spin", action="store_true", default=None, help=Text("wait by spinning, not by sleeping", "忙等而非阻塞等待")
    )


def main(parser: Parser, argv: Sequence[str], lang: Lang) -> int:
    own(parser)
    options.choosing(parser)
    options.launching(parser)
    options.judging(parser)
    options.common(parser, root=False)
    args = options.parse(parser, argv)
    from cwai_bench.cli.execute import execute, left_code

    return left_code(execute(args, "rdma", argv, lang, "rdma"))
