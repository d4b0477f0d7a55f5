"""Progress on stderr: a bar on a terminal, plain lines elsewhere, JSON lines for the process that started us."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from cwai_bench.model import Plan
from cwai_bench.text import Lang, Text

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

ELAPSED = Text("elapsed", "已用时")
MARK = "\x1ecwai-bench "
"""Begins a progress line meant for a program. The record separator occurs in no sane text."""


LINE_SECONDS = 5.0
"""Time between two lines that say how many nodes have answered."""


def _headline(plan: Plan, run_id: str, size: int, nodes: int) -> Text:
    """``size`` 0: nodes without ranks."""
    own = Text(", {n} script(s) of your own", "，{n} 个自定义脚本").fill(n=len(plan.scripts))
    if not size:
        return Text(
            "run {r}: {n} node(s) over ssh, {c} checks{o}", "运行 {r}：通过 ssh 检测 {n} 个节点，{c} 项检查{o}"
        ).fill(r=run_id, n=nodes, c=len(plan.checks), o=own if plan.scripts else "")
    return Text(
        "run {r}: {n} node(s), {s} rank(s), {c} checks{o}, {p} probes, about {e:.0f} s",
        "运行 {r}：{n} 个节点，{s} 个进程，{c} 项检查{o}，{p} 项探测，预计 {e:.0f} 秒",
    ).fill(
        r=run_id,
        n=nodes,
        s=size,
        c=len(plan.checks),
        o=own if plan.scripts else "",
        p=len(plan.probes),
        e=plan.expected,
    )


def _answered(late: Text | None) -> Text:
    if late is None:
        return Text("nodes answered", "个节点已回应")
    return Text("nodes answered; waiting for {l}", "个节点已回应，等待 {l}").fill(l=late)


class Silent:
    """Says nothing: ranks other than 0, and ``--json`` into a pipe."""

    def plan(self, plan: Plan, run_id: str, size: int, nodes: int) -> None: ...
    def begin(self, number: int, total: int, title: Text, expected: float) -> None: ...
    def end(self, number: int, total: int, title: Text) -> None: ...
    def answered(self, done: int, total: int, late: Text | None) -> None: ...
    def say(self, text: Text) -> None: ...
    def close(self) -> None: ...


class Lines(Silent):
    """One line for each step."""

    def __init__(self, lang: Lang) -> None:
        self.lang = lang
        self.started = self.told = time.monotonic()

    def say(self, text: Text) -> None:
        sys.stderr.write(f"cwai-bench: {text.to(self.lang)}\n")
        sys.stderr.flush()

    def plan(self, plan: Plan, run_id: str, size: int, nodes: int) -> None:
        self.say(_headline(plan, run_id, size, nodes))

    def begin(self, number: int, total: int, title: Text, expected: float) -> None:
        elapsed = time.monotonic() - self.started
        after = Text("{s:.1f} s elapsed", "已用 {s:.1f} 秒").fill(s=elapsed)
        sys.stderr.write(f"{number}/{total} {title.to(self.lang)} ({after.to(self.lang)})\n")
        sys.stderr.flush()

    def answered(self, done: int, total: int, late: Text | None) -> None:
        now = time.monotonic()
        if now - self.told > LINE_SECONDS:
            self.told = now
            line = _answered(late).to(self.lang)
            sys.stderr.write(f"[{now - self.started:6.1f} s] {done}/{total} {line}\n")
            sys.stderr.flush()


class Machine(Silent):
    """For the front, which shows it."""

    def _write(self, **event: Any) -> None:
        sys.stderr.write(MARK + json.dumps(event) + "\n")
        sys.stderr.flush()

    def plan(self, plan: Plan, run_id: str, size: int, nodes: int) -> None:
        line = _headline(plan, run_id, size, nodes)
        self._write(what="plan", en=line.en, zh=line.zh, expected=plan.expected)

    def begin(self, number: int, total: int, title: Text, expected: float) -> None:
        self._write(what="begin", number=number, total=total, en=title.en, zh=title.zh, expected=expected)

    def end(self, number: int, total: int, title: Text) -> None:
        self._write(what="end", number=number, total=total)


class Terminal(Silent):
    """A bar that moves with the expected time, since a probe cannot say how far it is."""

    def __init__(self, lang: Lang) -> None:
        self.lang = lang
        self.bar: Bar | None = None
        self.task: Any = None

    def say(self, text: Text) -> None:
        sys.stderr.write(f"cwai-bench: {text.to(self.lang)}\n")
        sys.stderr.flush()

    def plan(self, plan: Plan, run_id: str, size: int, nodes: int) -> None:
        self.headline(_headline(plan, run_id, size, nodes).to(self.lang))

    def headline(self, line: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        console.print(line, highlight=False, markup=False)
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            BarColumn(24),
            TextColumn("{task.description}", markup=False),
            TextColumn(ELAPSED.to(self.lang)),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self.bar.start()

    def begin(self, number: int, total: int, title: Text, expected: float) -> None:
        self.show(number, total, title.to(self.lang))

    def show(self, number: int, total: int, title: str) -> None:
        if self.bar is None:
            return
        if self.task is None:
            self.task = self.bar.add_task("", total=total)
        self.bar.update(self.task, completed=number - 1, total=total, description=title)

    def end(self, number: int, total: int, title: Text) -> None:
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=number)

    def answered(self, done: int, total: int, late: Text | None) -> None:
        self.show(done + 1, total, _answered(late).to(self.lang))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def take(self, line: str) -> bool:
        """Show a line of :class:`Machine`; False when it is none."""
        if not line.startswith(MARK):
            return False
        event = json.loads(line[len(MARK) :])
        if event["what"] == "plan":
            self.headline(event[self.lang])
        elif event["what"] == "begin":
            self.show(event["number"], event["total"], event[self.lang])
        return True
