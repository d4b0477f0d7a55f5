"""From parsed options to an exit code, for every command that measures: run, check, rdma, multipath, gate …"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import msgspec

from cwai_bench.cli import options as shared
from cwai_bench.cli import progress as views
from cwai_bench.cli.output import complain, put, write_json
from cwai_bench.errors import CwaiError, NoVerdictError, UsageError
from cwai_bench.model import Plan, Report, Scalar
from cwai_bench.plan import Choice, RunType, make_plan
from cwai_bench.probes import Options, World
from cwai_bench.text import Lang, Text

if TYPE_CHECKING:
    from cwai_bench.config import Criteria
    from cwai_bench.launch.order import Front, Order, Outcome
    from cwai_bench.launch.rank import Here

    Presentation = Callable[[Outcome, argparse.Namespace, Lang, TextIO], None]


def probe_options(args: argparse.Namespace) -> Options:
    """The probe options that this command has; the others keep their defaults."""
    known = {name for name in Options.__dataclass_fields__ if getattr(args, name, None) is not None}
    return Options(**{name: getattr(args, name) for name in known})


def choice_of(args: argparse.Namespace, run_type: RunType, order: Order | None = None) -> Choice:
    """What was chosen; ``order`` has the person's own scripts."""
    recorded = getattr(args, "root", None) is not None
    scripts = tuple(script.spec for script in order.scripts) if order is not None else ()
    return Choice(run_type, args.items, args.skip, args.budget, probe_options(args), recorded, scripts, args.disruptive)


def execute(
    args: argparse.Namespace,
    run_type: RunType,
    argv: Sequence[str],
    lang: Lang,
    command: str,
    *,
    quiet_stdout: bool = False,
    present: Presentation | None = None,
) -> Outcome:
    """Do it and show it. ``argv`` is what followed the command's name. ``quiet_stdout``: all our words go to stderr.
    ``present``: how it is shown where one process does it all, in place of :func:`show`.

    The exit code stands in the outcome. Raises CwaiError; SystemExit after ``--dry-run`` and where another rank speaks.
    """
    from cwai_bench.launch import rank, world

    lang = shared.lang_of(args, lang)
    told = world.launched()
    front = rank.front_of_environment()
    if told.size > 1 and front is None and (args.np or args.hosts):
        raise UsageError(
            Text(
                "-np and --hosts start mpirun, but this is already a rank of one",
                "已在 mpirun 中运行，不能再用 -np 或 --hosts",
            ),
            Text("leave them out", "请去掉这些选项"),
        )
    _check_root(args)
    if getattr(args, "ssh", None):
        over_ssh = order_of(args, run_type, command, argv, lang)
        return _over_ssh(args, choice_of(args, run_type, over_ssh), over_ssh, lang, quiet_stdout)
    _refuse_ssh_options(args)
    hosts = _nodes("--hosts", args.hosts)
    ranks = args.np or len(hosts) * (args.per_node or 1) or 1
    starts_mpirun = told.alone and front is None and (ranks > 1 or bool(hosts))

    interfaces: list[str | None] = [getattr(args, "interface", None), *(getattr(args, "interfaces", None) or ())]
    if any(interfaces) and told.alone and not hosts:  # all ranks are to be here; other nodes may have other NICs
        from cwai_bench.probes import nic

        for interface in filter(None, interfaces):
            nic.refuse_unknown(interface)

    def ordered() -> Order:
        """Asked of rank 0 alone: by the front what it was told itself, else by the files that the command names."""
        if front is not None:
            return rank.order_of_front(front)
        order = order_of(args, run_type, command, argv, lang)
        if not args.dry_run:
            _check_store(order)
        return order

    # The files are read before anything is started; several ranks have to agree on what is wrong with them.
    order = ordered() if front is None and told.rank == 0 and (told.alone or args.dry_run) else None
    choice = choice_of(args, run_type, order)
    if args.dry_run:
        names = hosts or (os.uname().nodename,)
        size = ranks if starts_mpirun else told.size
        if told.rank == 0:
            # Other nodes are taken to have what this one has: they are asked once they have met.
            show_plan(make_plan(choice, _world_like(rank.look(choice), names[:size], size)), args, lang)
        raise SystemExit(0)
    node = _node(args)
    here: Here | None = None
    if order is not None:  # wrong items and options are refused before anything is started
        if starts_mpirun:  # nobody has looked at the other nodes
            make_plan(choice, World(ranks, hosts or ("node",), True))
        else:
            here = rank.look(choice)
            make_plan(choice, _world_like(here, ("node",), 1))
        if not starts_mpirun and args.baseline and not order.baseline:
            _check_baseline_node(args.baseline, node)
    out = sys.stderr if quiet_stdout else sys.stdout
    if starts_mpirun:
        assert order is not None
        outcome = _front(args, order, ranks, hosts, [command, *argv], lang, out)
    else:
        view = _view(args, told.rank, front, lang)
        told_order = order
        task = rank.Task(
            choice,
            ordered if told_order is None else lambda: told_order,
            node,
            lambda error: complain(error, lang),
            getattr(args, "root", None),
            here,
        )
        try:
            outcome = rank.run(task, view)
        finally:
            view.close()
        if told.rank == 0 and front is None:
            (present or show)(outcome, args, lang, out)
    return _as_shown(outcome, args)


def _world_like(here: Here, nodes: tuple[str, ...], size: int) -> World:
    """``size`` ranks on ``nodes`` that all have what is ``here``."""
    at = [nodes[rank * len(nodes) // size] for rank in range(size)]
    return World(
        size,
        nodes,
        size > 1,
        () if here.rails is None else (here.rails,) * len(nodes),
        () if here.gpus is None else (here.gpus,) * len(nodes),
        *(() if count is None else tuple((node, count) for node in at) for count in (here.cards, here.npus)),
    )


def _as_shown(outcome: Outcome, args: argparse.Namespace) -> Outcome:
    """A verdict that could not be written to stdout is none."""
    if getattr(args, "output_lost", False) and outcome.exit_code == 0:
        return msgspec.structs.replace(outcome, exit_code=NoVerdictError.exit_code)
    return outcome


def left_code(outcome: Outcome) -> int:
    """What this process ends with. A front of ours carries the verdict; its ranks then end with 0, whatever it is, for
    mpirun takes any other end for an accident and says so at length."""
    from cwai_bench.launch import rank

    return 0 if rank.front_of_environment() is not None else outcome.exit_code


def order_of(
    args: argparse.Namespace, run_type: str, command: str, argv: Sequence[str], lang: Lang, *, runs: bool = True
) -> Order:
    """What the keepers must know. Reads the criteria and baseline files, and, where it ``runs`` them, the scripts.

    Raises UsageError, also for criteria and baselines that do not load.
    """
    from cwai_bench import baseline, scripts
    from cwai_bench.config import has_criteria
    from cwai_bench.document import read_file
    from cwai_bench.launch.order import Order

    if args.profile and args.criteria:
        raise UsageError(
            Text("--profile and --criteria are both given", "不能同时给出 --profile 与 --criteria"),
            Text(
                "write profile = {p!r} as the first line of the criteria file",
                "请在判据文件首行写 profile = {p!r}",
            ).fill(p=args.profile),
        )
    criteria_file: Path | None = args.criteria or args.config
    criteria = read_file(criteria_file) if criteria_file else ""
    if not args.criteria and criteria and not has_criteria(criteria, str(criteria_file)):
        criteria = ""
    if args.profile:
        criteria, criteria_file = f"profile = {json.dumps(args.profile)}\n", Path("--profile")
    baseline_text = ""
    if args.baseline and ("/" in args.baseline or Path(args.baseline).suffix == ".json"):
        baseline_text = read_file(Path(args.baseline))
        baseline.parse(baseline_text.encode(), args.baseline)
    own = parse_criteria(criteria, str(criteria_file)).scripts if criteria else {}
    runs = runs and run_type in ("run", "check")
    out: Path | None = args.out
    return Order(
        run_type=run_type,
        command=["cwai-bench", command, *argv],
        store=str(shared.store_of(args)),
        lang=lang,
        formats=list(args.format or ()),
        out=str(out.expanduser().absolute()) if out else "",
        criteria=criteria,
        criteria_name=str(criteria_file or ""),
        baseline_node=args.baseline or "",
        baseline=baseline_text,
        allow_unknown=args.allow_unknown,
        # A front on a terminal lays the summary out anew, as wide as that is.
        with_report=args.json or args.verbose or _on_terminal(sys.stdout) or _on_terminal(sys.stderr),
        settings=_settings(args),
        scripts=scripts.load(own.values(), criteria_file.parent) if runs and criteria_file else [],
    )


def parse_criteria(text: str, name: str) -> Criteria:
    """The criteria of a file, held against the items that there are. Raises UsageError."""
    from cwai_bench import config
    from cwai_bench.checks import CHECKS, criteria_items
    from cwai_bench.probes import PROBES

    return config.parse_criteria(text, name, {**criteria_items(), **dict.fromkeys(PROBES, "")}, {*CHECKS, *PROBES})


def _settings(args: argparse.Namespace) -> dict[str, Scalar]:
    """What was chosen, without what is at its default: enough to do it again."""
    defaults = asdict(Options())
    chosen = {k: v for k, v in asdict(probe_options(args)).items() if v != defaults[k]}
    for name in ("items", "skip", "disruptive", "budget", "baseline", "allow_unknown", "ssh", "ssh_user", "gateways"):
        value = getattr(args, name, None)
        if value:
            chosen[name] = value
    for name in ("criteria", "profile"):
        if getattr(args, name, None):
            chosen[name] = str(getattr(args, name))
    return {k: ",".join(map(str, v)) if isinstance(v, tuple) else v for k, v in sorted(chosen.items())}


def _check_root(args: argparse.Namespace) -> None:
    root: Path | None = getattr(args, "root", None)
    if root is not None and not root.is_dir():
        raise UsageError(
            Text("--root {p}: there is no such folder", "--root {p}：目录不存在").fill(p=root),
            Text("record one with: cwai-bench record DIR", "可用 cwai-bench record DIR 录制"),
        )


def _check_store(order: Order) -> None:
    """A store that cannot be written is refused now, not after the measurements."""
    for path in filter(None, (order.store, order.out)):
        try:
            Path(path).mkdir(parents=True, exist_ok=True)
            reason = None if os.access(path, os.W_OK | os.X_OK) else "Permission denied"
        except OSError as e:
            reason = e.strerror
        if reason is not None:
            raise UsageError(
                Text("cannot write to {p}: {e}", "无法写入 {p}：{e}").fill(p=path, e=reason),
                Text("choose another folder with --store or --out", "请用 --store 或 --out 选择其他目录"),
            )


def _on_terminal(stream: TextIO) -> bool:
    """Whether a person looks at ``stream``. Open MPI gives its ranks a terminal of its own, which nobody looks at."""
    from cwai_bench.launch import world

    return stream.isatty() and not world.under_launcher()


def _check_baseline_node(wanted: str, only: str) -> None:
    """With one node there is nobody else to be the baseline. With several, their names are known when they meet."""
    if wanted != only:
        raise UsageError(
            Text(
                "the baseline {b!r} is no node of this run, whose only node is {n}",
                "基线 {b!r} 不在本次运行中，其唯一节点为 {n}",
            ).fill(b=wanted, n=only),
            Text(
                "run over the nodes (--hosts, mpirun), or give a saved baseline: cwai-bench baseline record FILE",
                "请在多个节点上运行（--hosts 或 mpirun），或使用保存的基线：cwai-bench baseline record FILE",
            ),
        )


def _node(args: argparse.Namespace) -> str:
    root: Path | None = getattr(args, "root", None)
    if root is not None:
        from cwai_bench.discover.recorded import RecordedNode

        return RecordedNode(root).name
    return os.uname().nodename or "localhost"


def _nodes(option: str, text: str | None) -> tuple[str, ...]:
    """The names in a node set, in its order. Raises UsageError."""
    if not text:
        return ()
    from ClusterShell.NodeSet import NodeSet, NodeSetException

    form = Text("write node[01-16] or a,b", "写法示例：node[01-16] 或 a,b")
    try:
        names = tuple(NodeSet(text))
    except NodeSetException as e:
        raise UsageError(Text("{o} {h!r}: {e}", "{o} {h!r}：{e}").fill(o=option, h=text, e=e), form) from e
    if not names or any(name.startswith("-") for name in names):
        raise UsageError(Text("{o} {h!r} names no nodes", "{o} {h!r} 中没有节点").fill(o=option, h=text), form)
    return names


# ------------------------------------------------------------------------------------------------------------ ssh

_SSH_OPTIONS = ("ssh_user", "ssh_option", "ask_password", "remote_command", "fanout", "node_timeout", "gateways")


def _refuse_ssh_options(args: argparse.Namespace) -> None:
    """Options of --ssh do nothing without it. From a config file, which serves all commands, they are passed over."""
    if args.config is not None:
        return
    given = [name for name in _SSH_OPTIONS if getattr(args, name, None)]
    if given:
        option = "--" + given[0].replace("_", "-")
        raise UsageError(
            Text("{o} belongs to --ssh", "{o} 须与 --ssh 一同使用").fill(o=option),
            Text("give the nodes: --ssh node[01-16]", "请给出节点：--ssh node[01-16]"),
        )


def _over_ssh(args: argparse.Namespace, choice: Choice, order: Order, lang: Lang, quiet_stdout: bool) -> Outcome:
    from cwai_bench.launch import dialog, rank, ssh, world

    for name, option in (("np", "-np"), ("hosts", "--hosts"), ("per_node", "--per-node"), ("root", "--root")):
        if getattr(args, name, None):
            raise UsageError(
                Text("--ssh excludes {o}", "--ssh 不能与 {o} 同时使用").fill(o=option),
                Text("leave one of them out", "请去掉其中一个"),
            )
    if world.launched().size > 1:
        raise UsageError(
            Text("--ssh is not for ranks of an MPI job", "--ssh 不能在 MPI 作业的进程中使用"),
            Text("start it without mpirun", "请不经 mpirun 直接执行"),
        )
    nodes, gateways = _nodes("--ssh", args.ssh), _nodes("--gateways", args.gateways)
    plan = make_plan(choice, World(len(nodes), nodes, False))
    if args.dry_run:
        show_plan(plan, args, lang)
        raise SystemExit(0)
    if args.baseline and not order.baseline and args.baseline not in nodes:
        raise UsageError(
            Text("the baseline {b!r} is none of the nodes of --ssh", "基线 {b!r} 不在 --ssh 的节点中").fill(
                b=args.baseline
            ),
            Text(
                "name one of them, or give a saved baseline: cwai-bench baseline record FILE",
                "请给出其中之一，或使用保存的基线：cwai-bench baseline record FILE",
            ),
        )
    _check_store(order)
    defaults = dialog.Ways()
    ways = dialog.Ways(
        args.ssh_user or "",
        list(args.ssh_option),
        args.remote_command or "",
        args.fanout or defaults.fanout,
        args.node_timeout or defaults.seconds + rank.long_seconds(plan),
    )
    password = _password(args, lang) if args.ask_password else None
    view: views.Silent = views.Terminal(lang) if _on_terminal(sys.stderr) else views.Lines(lang)
    try:
        outcome = ssh.collect(order, plan, nodes, gateways, ways, view, password)
    finally:
        view.close()
    show(outcome, args, lang, sys.stderr if quiet_stdout else sys.stdout)
    return _as_shown(outcome, args)


def _password(args: argparse.Namespace, lang: Lang) -> str:
    """Ask on the terminal, and nowhere else. Raises UsageError when there is none."""
    import getpass

    if args.gateways:
        raise UsageError(
            Text(
                "--ask-password is not for --gateways: a password does not leave this machine",
                "--ask-password 不能与 --gateways 同时使用：密码不会离开本机",
            ),
            Text("give the gateways a key for their nodes", "请为网关配置登录其节点的密钥"),
        )
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError as e:
        raise UsageError(
            Text("--ask-password needs a terminal to ask on", "--ask-password 需要终端以输入密码"),
            Text("use a key (ssh-copy-id), or run it from a terminal", "请使用密钥（ssh-copy-id），或在终端中运行"),
        ) from e
    asked = Text("password for the nodes", "节点的登录密码").to(lang)
    try:
        password = getpass.getpass(f"cwai-bench: {asked}: ")
    except EOFError:
        password = ""
    if not password:
        raise UsageError(Text("the password is empty", "密码为空"), Text("type it when asked", "请在提示时输入"))
    return password


def _view(args: argparse.Namespace, rank: int, front: Front | None, lang: Lang) -> views.Silent:
    if rank != 0:
        return views.Silent()
    if front is not None:
        return views.Machine() if front.progress else views.Lines(lang)
    return views.Terminal(lang) if _on_terminal(sys.stderr) else views.Lines(lang)


def _front(
    args: argparse.Namespace,
    order: Order,
    ranks: int,
    hosts: tuple[str, ...],
    arguments: list[str],
    lang: Lang,
    out: TextIO,
) -> Outcome:
    from cwai_bench.launch import front

    view = views.Terminal(lang) if _on_terminal(sys.stderr) else None

    def tell(outcome: Outcome) -> None:
        if view:
            view.close()
        show(outcome, args, lang, out)

    try:
        ended = front.launch(
            order,
            front.Ranks(ranks, hosts, tuple(args.mpirun_option)),
            arguments,
            view.take if view else None,
            tell,
        )
    finally:
        if view:
            view.close()
    args.launcher_code = ended.launcher_code
    return ended.outcome


def show(outcome: Outcome, args: argparse.Namespace, lang: Lang, out: TextIO) -> None:
    """The result: JSON and nothing else, or the summary and where the report is. Troubles always go to stderr."""
    text = outcome.report
    if not args.json:
        text = _summary(outcome, args, lang, out).rstrip("\n") + "\n"
        if outcome.html:
            text += Text("report: {p}", "报告：{p}").fill(p=outcome.html).to(lang) + "\n"
    lost = put(out, text)
    if lost is not None:
        args.output_lost = out is sys.stdout
        put(sys.stderr, f"cwai-bench: {lost.show(lang)}\n")
    if outcome.trouble:
        ends = Text("the exit code is {c}", "退出码为 {c}").fill(c=outcome.exit_code).to(lang)
        sys.stderr.write(f"cwai-bench: {outcome.trouble}\n  → {ends}\n")


def _summary(outcome: Outcome, args: argparse.Namespace, lang: Lang, out: TextIO) -> str:
    if not (_on_terminal(out) or args.verbose) or not outcome.report:
        return outcome.summary
    from cwai_bench import render

    return laid_out(render.report_from_json(outcome.report.encode()), args, lang, _on_terminal(out))


TABLES_WIDTH = 160
"""Columns where no terminal has a say: as many as the widest table of figures has."""


def laid_out(report: Report, args: argparse.Namespace, lang: Lang, on_terminal: bool) -> str:
    """The summary of ``report``: as wide as the terminal, if there is one, and as full as was asked for."""
    from cwai_bench import render

    if not on_terminal:
        return render.summary(report, lang, width=TABLES_WIDTH if args.verbose else 100, verbose=args.verbose)
    import shutil

    width = shutil.get_terminal_size().columns
    return render.summary(report, lang, width=width, color=True, verbose=args.verbose)


def show_plan(plan: Plan, args: argparse.Namespace, lang: Lang) -> None:
    """The plan on stdout, as JSON or as lines."""
    if args.json:
        write_json(plan)
        return
    from cwai_bench.launch.rank import label

    lines = [
        Text("expected time: {s:.0f} s", "预计时长：{s:.0f} 秒").fill(s=plan.expected).to(lang),
        Text("{n} checks (-v lists them)", "{n} 项检查（-v 列出）").fill(n=len(plan.checks)).to(lang),
        *(f"  {check}" for check in plan.checks if args.verbose),
        *_long_lines(plan, lang),
        *_script_lines(plan, lang),
        Text("{n} probes:", "{n} 项探测：").fill(n=len(plan.probes)).to(lang),
    ]
    for spec in plan.probes:
        shown = " ".join(f"{k}={v}" for k, v in spec.parameters.items() if args.verbose)
        rounds = spec.parameters.get("rounds")
        many = Text(", {n} rounds", "，{n} 轮").fill(n=rounds).to(lang) if rounds is not None and rounds != 1 else ""
        lines.append(f"  {spec.id:<22} {spec.expected:5.1f} s  {label(spec).to(lang)}{many} {shown}".rstrip())
    if plan.left_out:
        lines.append(Text("left out:", "不执行：").to(lang))
        lines += [f"  {item.what:<28} {item.reason.to(lang)}" for item in plan.left_out]
    sys.stdout.write("\n".join(lines) + "\n")


def _long_lines(plan: Plan, lang: Lang) -> list[str]:
    """The vendors' tests that were asked for: what each takes by the vendor's word, and at most."""
    from cwai_bench.checks import CHECKS, long_run

    asked = [(id, runs) for id in plan.checks if (runs := long_run(id)) is not None]
    if not asked:
        return []
    lines = [Text("{n} tests of the vendors:", "{n} 项厂商测试：").fill(n=len(asked)).to(lang)]
    for id, runs in asked:
        most = Text("at most {s:g} s", "最长 {s:g} 秒").fill(s=runs.command.timeout).to(lang)
        lines.append(f"  {id:<22} {runs.expected:5.1f} s  {most}  {CHECKS[id].info.title.to(lang)}")
    return lines


def _script_lines(plan: Plan, lang: Lang) -> list[str]:
    """The person's own scripts: what each is expected to take, if anybody said, and at most."""
    if not plan.scripts:
        return []
    lines = [Text("{n} scripts of your own:", "{n} 个自定义脚本：").fill(n=len(plan.scripts)).to(lang)]
    for spec in plan.scripts:
        expected = f"{spec.expected:5.1f} s" if spec.expected else "     ? s"
        most = Text("at most {s:g} s", "最长 {s:g} 秒").fill(s=spec.limit).to(lang)
        lines.append(f"  {spec.info.id:<22} {expected}  {most}  {spec.info.title.to(lang)} {spec.nodes}".rstrip())
    return lines


__all__ = ["CwaiError", "choice_of", "execute", "laid_out", "left_code", "order_of", "probe_options", "show"]
