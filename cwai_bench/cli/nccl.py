"""``cwai-bench nccl``: which collective library a job loads here, with what plugins and settings, and how to change it.

It is the server check of the items ``nccl.*``; beside it stand what was found and the lines for a drop-in.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from cwai_bench import drop_in
from cwai_bench.cli import options
from cwai_bench.cli import parser as words
from cwai_bench.cli.output import columns, put
from cwai_bench.cli.parser import Parser
from cwai_bench.errors import UsageError
from cwai_bench.text import Lang, Text

if TYPE_CHECKING:
    from cwai_bench.discover.net_plugin import NetPlugin
    from cwai_bench.launch.order import Outcome
    from cwai_bench.model import PathFinding
    from cwai_bench.sources import Nccl

USAGE = "[options]"
ITEMS = ("nccl.*", "same.nccl.*")
LOOK_AS_THE_JOB = Text(
    "; run this as the job runs (its container, its virtual environment, its LD_LIBRARY_PATH), or give --library",
    "；请在与作业相同的环境中运行（容器、已激活的虚拟环境、LD_LIBRARY_PATH），或用 --library 指定",
)
OURS = Path()
"""In place of a path: the plugin of this package."""


def own(parser: Parser) -> None:
    """The options of this command alone."""
    group = parser.group(Text("what is looked at", "查看什么"))
    group.add(
        "--pid",
        metavar="PID",
        type=words.positive,
        help=Text(
            "a process that runs, in place of what a job started here would load",
            "查看正在运行的进程实际加载了什么，而非在此启动的作业将加载什么",
        ),
    )
    group = parser.group(Text("a drop-in: print the lines that make a job load it", "替换库：打印使作业加载它的设置"))
    # Names of their own: `library` of a configuration file is the one that collective measures.
    group.add(
        "--library",
        metavar="FILE",
        type=Path,
        dest="library_file",
        help=Text("a library such as CTCCL", "集合通信库文件，如 CTCCL"),
    )
    group.add(
        "--plugin",
        metavar="FILE",
        nargs="?",
        const=OURS,
        type=Path,
        dest="plugin_file",
        help=Text(
            "a net plugin; without FILE, the one that comes with cwai-bench",
            "网络插件；不带 FILE 时为 cwai-bench 自带的插件",
        ),
    )


def main(parser: Parser, argv: Sequence[str], lang: Lang) -> int:
    own(parser)
    options.judging(parser)
    options.common(parser)
    parser.set_defaults(items=ITEMS, skip=(), disruptive=(), budget=None, item_timeout=None, dry_run=False)
    parser.set_defaults(np=None, hosts=None, per_node=None, mpirun_option=[])
    args = options.parse(parser, argv)
    lang = options.lang_of(args, lang)
    if args.plugin_file == OURS:
        from cwai_bench import native

        args.plugin_file = native.net_plugin()
    _refuse(args)
    from cwai_bench.cli.execute import execute, left_code
    from cwai_bench.sources import PROCESS_VARIABLE

    os.environ.pop(PROCESS_VARIABLE, None)
    if args.pid is not None:
        os.environ[PROCESS_VARIABLE] = str(args.pid)
    return left_code(execute(args, "check", argv, lang, "nccl", present=present))


def _refuse(args: argparse.Namespace) -> None:
    """Raises UsageError for what cannot be looked at together, and for files that are no drop-in."""
    if args.pid is not None and args.root is not None:
        raise UsageError(
            Text("--pid is not for a recorded node", "--pid 不能用于录制的节点"),
            Text("leave one of them out", "请去掉其中一个"),
        )
    if args.pid is not None and not Path(f"/proc/{args.pid}").is_dir():
        raise UsageError(
            Text("--pid {p}: there is no such process", "--pid {p}：进程不存在").fill(p=args.pid),
            Text("ps or nvidia-smi tells the numbers of the job's processes", "可用 ps 或 nvidia-smi 查看作业进程号"),
        )
    for option, path, start in (
        ("--library", args.library_file, "nccl"),
        ("--plugin", args.plugin_file, "ncclNetPlugin_v"),
    ):
        if path is not None and args.root is None:
            _refuse_file(option, path, start)


def _refuse_file(option: str, path: Path, start: str) -> None:
    from cwai_bench.readers import Unreadable, elf

    try:
        with path.open("rb") as file:
            machine, exports = elf.shared_object(file).machine, elf.exported(file, start)
        why = "" if exports else f"it exports no {start}…"
        if machine != platform.machine():
            why = f"it is for {machine}"
    except OSError as e:
        why = e.strerror or str(e)
    except Unreadable as e:
        why = str(e)
    if why:
        raise UsageError(
            Text("{o} {p}: {w}", "{o} {p}：{w}").fill(o=option, p=path, w=why),
            Text("give the file itself, such as {e}", "请给出文件本身，例如 {e}").fill(
                e="/opt/ctccl/lib/libnccl.so.2" if option == "--library" else "/opt/cwai/lib/libnccl-net-cwai.so"
            ),
        )


def present(outcome: Outcome, args: argparse.Namespace, lang: Lang, out: TextIO) -> None:
    """What was found, the verdicts, and the lines; as JSON, all three in one document."""
    from cwai_bench.cli import net_paths
    from cwai_bench.cli.execute import show
    from cwai_bench.discover import net_plugin

    found = _found(args)
    told = _lines(args, found)
    net = None if args.pid is None else net_plugin.ask(args.pid)
    down = [] if net is None else _down(net)
    if args.json:
        import msgspec

        document = {"schema": 1, "report": msgspec.Raw(outcome.report.encode() or b"null"), "found": found}
        document |= {"net": net, "net_findings": down}
        text = msgspec.json.encode({**document, "lines": None if told is None else told._asdict()}).decode() + "\n"
        show(msgspec.structs.replace(outcome, report=text), args, lang, out)
        return
    put(out, _table(found, lang))
    put(out, "" if net is None else net_paths.table(net, lang))
    put(out, net_paths.told(down, lang))
    show(outcome, args, lang, out)
    put(out, "" if told is None else _as_text(told, lang))


def _down(net: NetPlugin) -> list[PathFinding]:
    from cwai_bench.judge.net_paths import findings

    return findings(net, platform.node())


def _found(args: argparse.Namespace) -> Nccl | None:
    """Asked once more, for a table; None where it had no answer, which the items tell."""
    import msgspec

    from cwai_bench.checks.nccl import NCCL
    from cwai_bench.discover import read_node
    from cwai_bench.sources import Nccl

    reading = read_node("", args.root, [NCCL], time.monotonic() + NCCL.timeout).readings[NCCL.key]
    try:
        return msgspec.json.decode(reading.text, type=Nccl) if reading.status == "ok" else None
    except msgspec.DecodeError:
        return None


def _lines(args: argparse.Namespace, found: Nccl | None) -> drop_in.Lines | None:
    """For the files that were named, else for those that lie here and are no NCCL of NVIDIA's; None for none."""
    from cwai_bench.checks.nccl import is_fork

    here = [] if found is None else [library.path for library in found.libraries if is_fork(library)]
    library = (
        str(args.library_file.absolute()) if args.library_file else "" if args.plugin_file else next(iter(here), "")
    )
    plugin = str(args.plugin_file.absolute()) if args.plugin_file else ""
    return drop_in.lines(library, plugin) if library or plugin else None


def _table(found: Nccl | None, lang: Lang) -> str:
    """Who loads which library and plugin."""
    from cwai_bench.checks.nccl import NONE_HERE, library_of, named, shown
    from cwai_bench.render.untrusted import neutral

    if found is None:
        return ""
    none = found.process is None and not found.libraries
    head = f"{NONE_HERE.to(lang)}{LOOK_AS_THE_JOB.to(lang)}\n" if none else ""
    rows = [[use.by, shown(use, library_of(found, use))] for use in found.uses]
    used = {use.path for use in found.uses}
    not_loaded = Text("not loaded", "未加载").to(lang)
    rows += [
        [not_loaded, f"{library.line or library.problem or '-'}, {library.path}"]
        for library in found.libraries
        if library.path not in used
    ]
    plugin = Text("plugin", "插件").to(lang)
    rows += [[plugin, named(p)] for p in found.plugins if p.path or p.wanted]
    return head + (columns([[neutral(cell) for cell in row] for row in rows]) + "\n" if rows else "")


def _as_text(told: drop_in.Lines, lang: Lang) -> str:
    parts = (
        (Text("for a shell:", "用于 shell："), told.shell),
        (Text("for a container:", "用于容器："), told.container),
        (Text("for a job script of Slurm:", "用于 Slurm 作业脚本："), told.slurm),
        (Text("for mpirun:", "用于 mpirun："), told.mpirun),
    )
    return "".join(f"\n{head.to(lang)}\n" + "".join(f"  {line}\n" for line in lines) for head, lines in parts)
