"""``cwai-bench``: find the command, parse, run, and turn every error into one clear message and an exit code."""

from __future__ import annotations

import errno
import importlib
import io
import signal
import sys
import traceback
from collections.abc import Sequence

from cwai_bench import __version__
from cwai_bench.cli.output import complain, silence, unwritten
from cwai_bench.cli.parser import Parser
from cwai_bench.errors import CwaiError, Interrupted, UsageError
from cwai_bench.text import LANGS, Lang, Text, default_lang

COMMANDS: dict[str, Text] = {
    "run": Text("check everything that applies here, and write the report", "执行所有适用的检测并生成报告"),
    "check": Text("server check: is each node as it should be, are all alike", "服务器检测：各节点是否正常、是否一致"),
    "rdma": Text("bandwidth and latency from NIC to NIC", "网卡之间的带宽与时延检测"),
    "collective": Text("sweep of a collective library", "通讯库性能检测"),
    "gpu": Text("memory, copies and products of NVIDIA GPUs, and silent corruption", "GPU 带宽、算力与静默错误检测"),
    "multipath": Text(
        "one transfer over several paths: each alone, all at once by every policy, and with a path that fails",
        "多路径传输：各路径单独、按各策略同时使用，以及路径故障演练",
    ),
    "nccl": Text(
        "which NCCL a job loads here, with which plugins and settings, and the lines for another",
        "作业将加载哪个集合通信库、插件与设置，以及替换所需的设置",
    ),
    "gate": Text("run, then start a command only if all is well", "先检测，全部正常才启动命令"),
    "report": Text("make the report of a saved run again", "为已保存的运行重新生成报告"),
    "baseline": Text("a node to hold others against: record, show, diff", "基线：录制、查看、比较"),
    "history": Text("runs of the past: list, show, stop, delete", "检测历史：列出、查看、停止、删除"),
    "devices": Text("what is here: back ends, NICs, cards", "本机有什么：后端、网卡、加速卡"),
    "record": Text("record this node, to be checked elsewhere", "录制本节点，供在别处检测"),
}
STARTED_BY_US: dict[str, Text] = {
    "answer": Text("answer a cwai-bench that asks over ssh", "回应通过 ssh 询问的 cwai-bench"),
}
"""Commands that nobody types: they are in no list."""
EXIT_CODES = Text(
    """exit codes:
  0  every required item passed        1  something failed
  2  the command or a file is wrong    3  no verdict
  130, 143  stopped by a signal""",
    """退出码：
  0  所有必检项通过        1  有检测项不通过
  2  命令或文件有误        3  无法得出结论
  130、143  被信号终止""",
)
DESCRIPTION = Text(
    "Is this cluster fit to train, and if not, which node, card, NIC or link is not?",
    "本集群能否用于训练？若不能，问题在哪个节点、哪张卡、哪块网卡或哪条链路？",
)


def entry(argv: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit code; never lets a traceback of an expected error through."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character gets a question mark, not a traceback
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
    try:
        lang = chosen_lang(arguments)
    except UsageError as e:
        return _complain(e, default_lang())
    code = 0
    try:
        code = _dispatch(arguments, lang)
        sys.stdout.flush()
        return code
    except CwaiError as e:
        return _complain(e, lang)
    except BrokenPipeError:
        silence(sys.stdout)
        return code or 128 + signal.SIGPIPE  # as the shell says of a program that a closed pipe ended
    except KeyboardInterrupt:
        return 130
    except Interrupted as e:
        return 128 + e.number
    except Exception as e:
        if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EIO) and e.filename is None:
            silence(sys.stdout)
            complained = _complain(unwritten(e), lang)
            return code or complained
        traceback.print_exc()
        bug = Text(
            "cwai-bench {v}: this is a bug of ours; please report it with the lines above",
            "cwai-bench {v}：这是本工具的缺陷，请附上以上内容反馈",
        ).fill(v=__version__)
        sys.stderr.write(bug.to(lang) + "\n")
        return 3


def chosen_lang(arguments: Sequence[str]) -> Lang:
    """``--lang`` wherever it stands (before ``--``), else the locale's. Raises UsageError for a language we lack."""
    value: str | None = None
    for i, word in enumerate(arguments):
        if word == "--":
            break
        if word == "--lang" and i + 1 < len(arguments):
            value = arguments[i + 1]
        elif word.startswith("--lang="):
            value = word.partition("=")[2]
    if value is None:
        return default_lang()
    for lang in LANGS:
        if value == lang:
            return lang
    raise UsageError(Text("--lang: {v!r} is not zh or en", "--lang：{v!r} 不是 zh 或 en").fill(v=value))


def _dispatch(arguments: list[str], lang: Lang) -> int:
    before_command: list[str] = []
    while arguments and arguments[0].startswith("-"):
        word = arguments.pop(0)
        before_command.append(word)
        if word == "--lang" and arguments:
            before_command.append(arguments.pop(0))
    parser = _parser(lang)
    parser.parse(before_command)
    if not arguments:
        parser.print_help()
        return 2
    name = arguments.pop(0)
    if name not in COMMANDS and name not in STARTED_BY_US:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, 1, 0.4)
        raise UsageError(
            Text("unknown command {n!r}", "未知命令 {n!r}").fill(n=name),
            Text("did you mean {n!r}?", "是否想用 {n!r}？").fill(n=near[0])
            if near
            else Text("commands: {c}", "可用命令：{c}").fill(c=", ".join(COMMANDS)),
        )
    module = importlib.import_module(f"cwai_bench.cli.{name}")
    parser = Parser(
        lang,
        prog=f"cwai-bench {name}",
        usage=f"cwai-bench {name} {module.USAGE}",
        description=(COMMANDS | STARTED_BY_US)[name].to(lang) + "." * (lang == "en") + "。" * (lang == "zh"),
        epilog=EXIT_CODES.to(lang),
    )
    result: int = module.main(parser, arguments, lang)
    return result


def _parser(lang: Lang) -> Parser:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {text.to(lang)}" for name, text in COMMANDS.items())
    heading = Text("commands:", "命令：").to(lang)
    first = Text("first steps:", "开始使用：").to(lang)
    examples = (
        "  cwai-bench run\n  cwai-bench run -np 2\n"
        "  cwai-bench run --hosts node[01-16]\n  mpirun -np 16 -H ... cwai-bench gate -- python train.py"
    )
    parser = Parser(
        lang,
        prog="cwai-bench",
        usage="cwai-bench COMMAND [...]",
        description=DESCRIPTION.to(lang),
        epilog=f"{heading}\n{commands}\n\n{first}\n{examples}\n\n{EXIT_CODES.to(lang)}",
    )
    parser.add(
        "--version", action="version", version=f"cwai-bench {__version__}", help=Text("show the version", "显示版本")
    )
    parser.add("--lang", metavar="zh|en", help=Text("language (default: the locale's)", "语言（默认随系统区域设置）"))
    return parser


def _complain(error: CwaiError, lang: Lang) -> int:
    complain(error, lang)
    return error.exit_code
