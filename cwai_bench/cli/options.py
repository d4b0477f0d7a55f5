"""Options that several commands share, their defaults from a config file, and what they mean together."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cwai_bench.cli import parser as words
from cwai_bench.cli.parser import Parser
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
            'defaults for options, as TOML (store = "/shared/cwai")',
            '选项默认值文件（TOML，如 store = "/shared/cwai"）',
        ),
    )
    group.add("-v", "--verbose", action="store_true", help=Text("say more", "输出更多信息"))


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


def judging(parser: Parser) -> None:
    """How the run is judged."""
    group = parser.group(Text("how it is judged", "如何判定"))
    group.add(
        "--criteria", metavar="FILE", type=Path, help=Text("your own criteria, as TOML", "自定义判断标准文件（TOML）")
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


def parse(parser: Parser, argv: Sequence[str], command: str) -> argparse.Namespace:
    """Parse, with defaults from ``--config`` where the command line is silent. Raises UsageError."""
    path = _config_path(argv)
    if path is not None:
        parser.set_defaults(**_read_config(path, parser, command))
    args = parser.parse(argv)
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


def _read_config(path: Path, parser: Parser, command: str) -> dict[str, Any]:
    """Options of a TOML file: those at the top level, then those under ``[COMMAND]``."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    data = read_file(path, Text("config file", "配置文件"))
    try:
        table: dict[str, Any] = tomllib.loads(data)
    except tomllib.TOMLDecodeError as e:
        raise UsageError(
            Text("{p} is not valid TOML: {e}", "{p} 不是有效的 TOML：{e}").fill(p=path, e=e),
            Text("mend that line", "请修正该行"),
        ) from e
    chosen = {k: v for k, v in table.items() if not isinstance(v, dict)} | dict(table.get(command, {}))
    actions = {a.dest: a for a in parser._actions if a.option_strings and a.dest not in ("help", "config")}
    everywhere = set(actions) | _all_options()
    values: dict[str, Any] = {}
    for key, value in chosen.items():
        dest = key.replace("-", "_")
        if dest not in everywhere:
            near = difflib.get_close_matches(key, [a.replace("_", "-") for a in everywhere], 1, 0.4)
            raise UsageError(
                Text("{p}: unknown option {k!r}", "{p}：未知选项 {k!r}").fill(p=path, k=key),
                Text("did you mean {n!r}?", "是否想用 {n!r}？").fill(n=near[0]) if near else None,
            )
        action = actions.get(dest)
        if action is None:
            continue  # an option of another command
        if isinstance(action, argparse._StoreTrueAction):
            if not isinstance(value, bool):
                raise UsageError(
                    Text("{p}: {k} must be true or false", "{p}：{k} 应为 true 或 false").fill(p=path, k=key)
                )
            values[dest] = value
            continue
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        try:
            values[dest] = parser._get_value(action, text)
        except argparse.ArgumentError as e:
            raise UsageError(
                Text("{p}: {k} = {v!r} is not valid", "{p}：{k} = {v!r} 不是有效的值").fill(p=path, k=key, v=value)
            ) from e
    return values


def _all_options() -> set[str]:
    """Every option that any measuring command has: one config file serves them all."""
    from cwai_bench.cli import collective, rdma

    every = Parser("en", prog="")
    for part in (common, launching, judging, choosing):
        part(every)
    rdma.own(every)
    collective.own(every)
    return {a.dest for a in every._actions}


def read_file(path: Path, what: Text) -> str:
    """The text of a file that the person named. Raises UsageError naming it."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as e:
        raise UsageError(
            Text("cannot read the {w} {p}: {e}", "无法读取{w} {p}：{e}").fill(w=what, p=path, e=e.strerror),
            Text("check the path and its permissions", "请检查路径与权限"),
        ) from e
    except UnicodeDecodeError as e:
        raise UsageError(
            Text("the {w} {p} is not UTF-8 text", "{w} {p} 不是 UTF-8 文本").fill(w=what, p=path),
            Text("give a text file", "请给出文本文件"),
        ) from e


def store_of(args: argparse.Namespace) -> Path:
    """The store: ``--store``, else the user's own."""
    from cwai_bench.journal import default_store

    store: Path | None = args.store
    return (store or default_store()).expanduser().absolute()


def lang_of(args: argparse.Namespace, lang: Lang) -> Lang:
    """``--lang`` may also come from the config file."""
    found: Lang | None = args.lang
    return found or lang
