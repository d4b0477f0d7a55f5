"""``cwai-bench devices``: what is here. For each back end three things: built? loadable? device present?"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cwai_bench.cli import options
from cwai_bench.cli.parser import Parser
from cwai_bench.text import Lang, Text

USAGE = "[options]"


def main(parser: Parser, argv: Sequence[str], lang: Lang) -> int:
    options.common(parser, root=False)
    args = options.parse(parser, argv)
    lang = options.lang_of(args, lang)
    from cwai_bench import native
    from cwai_bench.discover.network import network

    backends = native.backends()
    interfaces = network().interfaces
    if args.json:
        import msgspec

        sys.stdout.write(msgspec.json.encode({"backends": backends, "interfaces": interfaces}).decode() + "\n")
        return 0
    yes, no = Text("yes", "是"), Text("no", "否")
    head = [Text("back end", "后端"), Text("built", "已编译"), Text("loadable", "可加载"), Text("present", "有设备")]
    sys.stdout.write("".join(f"{h.to(lang):<12}" for h in head) + "\n")
    for b in backends:
        flags = "".join(f"{(yes if flag else no).to(lang):<12}" for flag in (b.built, b.loadable, b.present))
        sys.stdout.write(f"{b.name:<12}{flags}{b.detail.to(lang)}\n")
    sys.stdout.write("\n" + Text("network interfaces", "网络接口").to(lang) + "\n")
    for i in interfaces:
        speed = f"{i.speed / 1e9:g} Gb/s" if i.speed else "-"
        sys.stdout.write(f"  {i.name:<16}{i.operstate:<10}MTU {i.mtu:<7}{speed:<10}{i.driver}\n")
    return 0
