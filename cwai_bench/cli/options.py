"""Options that several commands share, their defaults from a config file, and what they mean together."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cwai_bench.cli import parser as words
from cwai_bench.cli.parser import Group, Parser
from cwai_bench.errors import UsageError
from cwai_bench.render import RENDERERS
from cwai_bench.text import Lang, Text


def common(parser: Parser, *, root: bool = True) -> None:
    """What every command has."""
    group = parser.group(Text("common options", "通用选项"))
    if root:
        group.add(
            "--root",
            metavar="DIR",
            type=Path,
            help=Text(
                "a recorded node instead of this one (see cwai-bench record)",
                "检测录制的节点而非本机（见 cwai-bench record）",
            ),
        )
    group.add(
        "--out",
        metavar="DIR",
        type=Path,
        help=Text("also write the report into this folder", "同时将报告写入此目录"),
    )
    group.add(
        "--store",
        metavar="DIR",
        type=Path,
        help=Text(
            "where runs are kept (default: ~/.local/state/cwai-bench)",
            "运行记录的存储目录（默认 ~/.local/state/cwai-bench）",
        ),
    )
    group.add(
        "--format",
        metavar="F[,F]",
        type=words.names,
        help=Text("further formats to write: {f}", "另外输出的格式：{f}").fill(f=", ".join(RENDERERS)),
    )
    group.add("--lang", metavar="zh|en", choices=("zh", "en"), help=Text("language of the output", "输出语言"))
    group.add(
        "--json",
        action="store_true",
        help=Text("the result as JSON on stdout, nothing else", "仅向标准输出打印 JSON 结果"),
    )
    group.add(
        "--config",
        metavar="FILE",
        type=Path,
        help=Text(
            "defaults for options, as TOML: [options], and below it store = '/shared/cwai' and the like",
            "选项默认值文件（TOML）：[options] 一节，如 store = '/shared/cwai'",
        ),
    )
    group.add(
        "-v",
        "--verbose",
        action="store_true",
        help=Text("say more: every item, every figure", "输出更多信息：全部检测项与数据"),
    )


def launching(parser: Parser) -> None:
    """How ranks are started, for commands that measure."""
    group = parser.group(Text("where it runs", "在哪里运行"))
    group.add(
        "-np",
        metavar="N",
        type=words.positive,
        dest="np",
        help=Text("start N ranks with mpirun", "用 mpirun 启动 N 个进程"),
    )
    group.add(
        "--hosts",
        metavar="NODES",
        help=Text(
            "start mpirun over these nodes (node[01-16] or a,b)", "用 mpirun 在这些节点上运行（node[01-16] 或 a,b）"
        ),
    )
    group.add(
        "--per-node",
        metavar="N",
        type=words.positive,
        help=Text("ranks per node with --hosts (default 1)", "配合 --hosts：每节点进程数（默认 1）"),
    )
    group.add(
        "--mpirun-option",
        metavar="OPT",
        action="append",
        default=[],
        help=Text("passed to mpirun as it is; may be repeated", "原样传给 mpirun，可重复使用"),
    )


def over_ssh(parser: Parser) -> None:
    """Nodes over ssh, for commands that do a server check."""
    group = parser.group(Text("where it runs, without MPI", "在哪里运行（不用 MPI）"))
    group.add(
        "--ssh",
        metavar="NODES",
        help=Text(
            "server check of these nodes over ssh (node[01-64], a,b, @group); cwai-bench must be installed there",
            "通过 ssh 检测这些节点（node[01-64]、a,b 或 @组名），节点上须已安装 cwai-bench",
        ),
    )
    group.add("--ssh-user", metavar="USER", help=Text("log in as this user", "登录用户名"))
    group.add(
        "--ssh-option",
        metavar="OPT",
        action="append",
        default=[],
        help=Text(
            "an option of ssh_config(5), such as Port=2222; may be repeated",
            "ssh_config(5) 选项，如 Port=2222，可重复使用",
        ),
    )
    group.add(
        "--ask-password",
        action="store_true",
        help=Text("ask for a password once, for all nodes", "询问一次密码，用于所有节点"),
    )
    group.add(
        "--remote-command",
        metavar="CMD",
        help=Text(
            "what starts cwai-bench there (default: this one's own path, else cwai-bench on its PATH)",
            "节点上启动 cwai-bench 的命令（默认：与本机相同的路径，否则为其 PATH 中的 cwai-bench）",
        ),
    )
    group.add(
        "--fanout",
        metavar="N",
        type=words.positive,
        help=Text("connections at a time (default 64)", "同时连接数（默认 64）"),
    )
    group.add(
        "--node-timeout",
        metavar="TIME",
        type=words.seconds,
        help=Text(
            "time for one node, from connecting to its last word (default 2m)", "单个节点的时限，自连接起（默认 2m）"
        ),
    )
    group.add(
        "--gateways",
        metavar="NODES",
        help=Text(
            "for large groups: these connect to the nodes, each to its share",
            "用于大规模集群：由这些节点分别连接各自负责的一部分节点",
        ),
    )


def judging(parser: Parser) -> None:
    """How the run is judged."""
    group = parser.group(Text("how it is judged", "如何判定"))
    group.add(
        "--criteria",
        metavar="FILE",
        type=Path,
        help=Text("your own criteria and scripts, as TOML", "自定义判断标准与脚本文件（TOML）"),
    )
    group.add(
        "--profile",
        metavar="NAME",
        help=Text(
            "criteria for a kind of node, such as 8xH100 (in a criteria file: profile = ...)",
            "某类节点的判断标准，如 8xH100（在判据文件中写 profile = ...）",
        ),
    )
    group.add(
        "--baseline",
        metavar="NODE|FILE",
        help=Text("the node, or saved baseline, that the others must equal", "基线节点，或保存的基线文件"),
    )
    group.add(
        "--allow-unknown",
        action="store_true",
        help=Text("a required item that is UNKNOWN does not spoil the verdict", "必检项结果未知时不影响结论"),
    )


def choosing(parser: Parser) -> None:
    """What is done."""
    group = parser.group(Text("what is done", "检测内容"))
    group.add(
        "--items",
        metavar="ID[,ID]",
        type=words.names,
        default=(),
        help=Text("only these items; patterns work (memory.*)", "只执行这些检测项，可用通配（memory.*）"),
    )
    group.add(
        "--skip", metavar="ID[,ID]", type=words.names, default=(), help=Text("all but these items", "不执行这些检测项")
    )
    group.add(
        "--disruptive",
        metavar="ID[,ID]",
        type=words.names,
        default=(),
        help=Text(
            "also run these tests of the vendors, which take long or take the cards (check --list names them)",
            "另外运行这些厂商测试：耗时长或独占加速卡（用 check --list 查看）",
        ),
    )
    group.add(
        "--budget",
        metavar="TIME",
        type=words.seconds,
        help=Text("leave out what does not fit (50s, 5m)", "超出此时长的内容不执行（50s、5m）"),
    )
    group.add(
        "--item-timeout",
        metavar="TIME",
        type=words.seconds,
        help=Text("give an item up after this long", "单项超时时间"),
    )
    group.add(
        "--dry-run",
        action="store_true",
        help=Text("print the plan and its expected time, do nothing", "只打印计划及预计时长，不执行"),
    )


def parse(parser: Parser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse, with defaults from ``--config`` where the command line is silent. Raises UsageError."""
    path = _config_path(argv)
    if path is not None:
        parser.set_defaults(**_read_config(path, parser))
    args = parser.parse(argv)
    args.config = path
    for name in getattr(args, "format", None) or ():
        if name not in RENDERERS:
            near = difflib.get_close_matches(name, RENDERERS, 1, 0.3)
            raise UsageError(
                Text("--format: {n!r} is not known", "--format：未知格式 {n!r}").fill(n=name),
                Text("did you mean {n!r}? Formats: {f}", "是否想用 {n!r}？可用格式：{f}").fill(
                    n=near[0], f=", ".join(RENDERERS)
                )
                if near
                else Text("formats: {f}", "可用格式：{f}").fill(f=", ".join(RENDERERS)),
            )
    return args


def _config_path(argv: Sequence[str]) -> Path | None:
    for i, word in enumerate(argv):
        if word == "--":
            break
        if word == "--config" and i + 1 < len(argv):
            return Path(argv[i + 1])
        if word.startswith("--config="):
            return Path(word.partition("=")[2])
    found = os.environ.get("CWAI_BENCH_CONFIG")
    return Path(found) if found else None


def _read_config(path: Path, parser: Parser) -> dict[str, Any]:
    """The ``[options]`` of a configuration file that this command has; those of other commands are passed over."""
    from cwai_bench import config, document

    actions = {a.dest: a for a in parser._actions}
    known = {dest.replace("_", "-"): kind for dest, kind in _all_options().items()}
    values: dict[str, Any] = {}
    for key, value in config.parse_options(document.read_file(path), str(path), known).items():
        action = actions.get(key.replace("-", "_"))
        if action is None:
            continue
        try:
            values[action.dest] = value if isinstance(value, bool) else parser._get_value(action, str(value))
        except argparse.ArgumentError as e:
            raise UsageError(
                Text("{p}: {k} = {v!r} is not valid", "{p}：{k} = {v!r} 不是有效的值").fill(p=path, k=key, v=value),
                Text("write it as on the command line", "写法与命令行相同"),
            ) from e
    return values


def _all_options() -> dict[str, type]:
    """Every option that any measuring command has, and the type of its value: one file serves all commands."""
    from cwai_bench.cli import collective, gpu, multipath, rdma

    actions: list[argparse.Action] = []
    for part in (common, launching, over_ssh, judging, choosing, rdma.own, collective.own, gpu.own, multipath.own):
        parser = Parser("en", prog="")  # one each: commands may have options of the same name
        part(parser)
        actions += parser._actions

    def kind(action: argparse.Action) -> type:
        if isinstance(action, argparse._StoreTrueAction):
            return bool
        return int if action.type in (words.positive, words.number) else str

    return {a.dest: kind(a) for a in actions if a.dest not in ("help", "config", "mpirun_option", "ssh_option")}


def store_of(args: argparse.Namespace) -> Path:
    """The store: ``--store``, else the user's own."""
    from cwai_bench.journal import default_store

    store: Path | None = args.store
    return (store or default_store()).expanduser().absolute()


def lang_of(args: argparse.Namespace, lang: Lang) -> Lang:
    """``--lang`` may also come from the config file."""
    found: Lang | None = args.lang
    return found or lang


def as_node(group: Group) -> None:
    """Of commands over RDMA: devices of one machine pass for nodes."""
    group.add(
        "--as-node",
        metavar="D=NAME[,…]",
        type=words.devices_as_nodes,
        help=Text(
            "for trying out: take RDMA devices of this machine for nodes (rxe0=a,rxe1=b)",
            "试用：将本机的 RDMA 设备当作不同节点（rxe0=a,rxe1=b）",
        ),
    )


def gid_index(group: Group) -> None:
    group.add(
        "--gid-index",
        metavar="N",
        type=words.number,
        help=Text("default: of RoCE v2 with an IPv4 address, if there is one", "默认：优先选择 RoCE v2 的 IPv4 地址"),
    )


def patience(group: Group) -> None:
    """How long a queue pair waits for an answer, and how often it sends again."""
    group.add(
        "--qp-timeout",
        metavar="N",
        type=words.number,
        help=Text(
            "wait 4.096 us · 2^N for an answer (default 14: 67 ms)", "等待应答 4.096 us · 2^N（默认 14，即 67 ms）"
        ),
    )
    group.add("--retries", metavar="N", type=words.number, help=Text("0 to 7 (default 7)", "0 到 7（默认 7）"))
