"""``cwai-bench devices``: what is here. For each back end three things: built? loadable? device present?"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cwai_bench.cli import options
from cwai_bench.cli.output import columns
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
    rows = [[h.to(lang) for h in head] + [""]]
    for b in backends:
        flags = [(yes if flag else no).to(lang) for flag in (b.built, b.loadable, b.present)]
        rows.append([b.name, *flags, b.detail.to(lang)])
    sys.stdout.write(columns(rows))
    sys.stdout.write("\n" + Text("network interfaces", "网络接口").to(lang) + "\n")
    speeds = [f"{i.speed / 1e9:g} Gb/s" if i.speed else "-" for i in interfaces]
    sys.stdout.write(
        columns(
            [[i.name, i.operstate, f"MTU {i.mtu}", s, i.driver] for i, s in zip(interfaces, speeds, strict=True)],
            indent=2,
        )
    )
    return 0
