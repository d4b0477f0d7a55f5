"""``cwai-bench gate -- CMD``: the run, then CMD in this process's place if all is well.

Our words go to stderr, so that CMD's output stays its own; ``gate.json`` in the run's folder (and ``--status-file``)
says whether CMD was started, so that its exit code and ours are never confused.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cwai_bench.cli import options
from cwai_bench.cli.parser import Parser
from cwai_bench.errors import UsageError
from cwai_bench.text import Lang, Text

if TYPE_CHECKING:
    from cwai_bench.launch.order import Outcome

USAGE = "[options] -- CMD [ARG ...]"


def main(parser: Parser, argv: Sequence[str], lang: Lang) -> int:
    words = list(argv)
    command: list[str] = []
    if "--" in words:
        at = words.index("--")
        words, command = words[:at], words[at + 1 :]
    parser.add(
        "--status-file",
        metavar="FILE",
        type=Path,
        help=Text("write what became of the gate here too", "将门禁结果另外写入此文件"),
    )
    parser.add(
        "--check-only", action="store_true", help=Text("only the server check, no probes", "仅服务器检测，不做探测")
    )
    options.choosing(parser)
    options.launching(parser)
    options.over_ssh(parser)
    options.judging(parser)
    options.common(parser)
    args = options.parse(parser, words)
    if not command:
        raise UsageError(
            Text("there is no command to start", "未给出要启动的命令"),
            Text("write: cwai-bench gate -- CMD ARG ...", "写法：cwai-bench gate -- CMD ARG ..."),
        )
    if shutil.which(command[0]) is None:
        raise UsageError(
            Text("cannot start {c!r}: no such command", "无法启动 {c!r}：命令不存在").fill(c=command[0]),
            Text("check its path, and that it is executable", "请检查路径及执行权限"),
        )
    from cwai_bench.cli.execute import execute, left_code
    from cwai_bench.launch import rank, world

    run_type = "check" if args.check_only or args.ssh else "run"
    outcome = execute(args, run_type, argv, lang, "gate", quiet_stdout=True)  # type: ignore[arg-type]
    told = world.launched()
    launcher_code: int | None = getattr(args, "launcher_code", None)
    if launcher_code is not None:  # the ranks have started the command, or have not; mpirun has ended
        return launcher_code if outcome.exit_code == 0 else outcome.exit_code
    if told.rank == 0:
        _write_status(outcome, args, command)
    if outcome.exit_code != 0:
        if told.rank == 0:
            sys.stderr.write(
                Text("cwai-bench: the command was not started", "cwai-bench：命令未启动").to(
                    options.lang_of(args, lang)
                )
                + "\n"
            )
        return left_code(outcome)
    os.environ.pop(rank.FRONT_VARIABLE, None)
    sys.stdout.flush()
    sys.stderr.flush()
    return _become(command)


def _become(command: list[str]) -> NoReturn:
    os.execvp(command[0], command)


def _write_status(outcome: Outcome, args: argparse.Namespace, command: list[str]) -> None:
    status = {
        "run_id": outcome.run_id,
        "status": outcome.status,
        "exit_code": outcome.exit_code,
        "command_started": outcome.exit_code == 0,
        "command": command,
        "leave_out": outcome.leave_out,
        "report": outcome.html,
    }
    text = json.dumps(status, ensure_ascii=False, indent=1) + "\n"
    wanted: list[Path] = [args.status_file] if args.status_file else []
    if outcome.folder and Path(outcome.folder).is_dir():
        wanted.append(Path(outcome.folder) / "gate.json")
    for path in wanted:
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as e:
            raise UsageError(
                Text("cannot write the status file {p}: {e}", "无法写入状态文件 {p}：{e}").fill(p=path, e=e.strerror)
            ) from e
