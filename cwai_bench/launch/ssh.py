"""Facts of nodes over ssh, without MPI: one connection to each, a few at a time, and one dialog over it (dialog.py).

ClusterShell knows the names (node sets, groups) and divides them among gateways; the connections are our own, because
its engine hears lines without a bound on their length, has no dialog with one node (what like nodes read alike travels
once), and its gateways need ClusterShell in the system's own Python.

Each node has its time limit. What keeps one from answering is written down under its name, in the words of ssh and with
the next step, and the others go on. Host keys are always checked as the person's ssh does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from cwai_bench import __version__, journal
from cwai_bench.errors import UsageError
from cwai_bench.judge.found import bug
from cwai_bench.launch import dialog, finish, parcel, wire
from cwai_bench.launch.door import Door
from cwai_bench.launch.order import Order, Outcome
from cwai_bench.model import FactsRecord, NodeEnd, Plan, RankEvent, ReasonCode, Record, RunHeader
from cwai_bench.text import Text, plain

CONNECT_SECONDS = 10
END_GRACE = 1.0
"""Seconds that an ssh may take to end after its end was closed, and again after SIGTERM."""
OTHERS_SECONDS = 5.0
"""How long a node waits for texts that another one is just sending, before they are asked of it as well."""
RELAY_GRACE = 30.0
WORDS_LIMIT = 400
STDERR_LIMIT = 8192
NOISE_LIMIT = 1 << 16
"""Bytes that a login may print before our own process speaks."""
NAMES_SHOWN = 5


class Sink(Protocol):
    """Where a collector puts what it hears."""

    async def answered(self, facts: dialog.Facts, texts: Mapping[str, str]) -> None:
        """Facts are there; ``texts`` has all that they refer to. Raises WireError for what are none."""

    async def lost(self, node: str, reason_code: ReasonCode, why: Text) -> None: ...
    def remark(self, text: Text) -> None: ...


class _Trouble(Exception):
    """Why nothing came (or no more)."""

    def __init__(self, reason_code: ReasonCode, why: Text) -> None:
        super().__init__(why.en)
        self.reason_code: ReasonCode = reason_code
        self.why = why


class _EndedError(Exception):
    """The other end is gone."""


class Collector:
    """Asks nodes, directly or through gateways."""

    def __init__(self, ask: dialog.Ask, ways: dialog.Ways, sink: Sink, door: Door | None = None) -> None:
        self._ask, self._ways, self._sink, self._door = ask, ways, sink, door
        self._lanes = asyncio.Semaphore(ways.fanout)
        self._texts: dict[str, str] = {}
        self._coming: dict[str, asyncio.Future[None]] = {}
        """Texts that some node is just sending."""
        self._processes: set[asyncio.subprocess.Process] = set()
        self._stopped = 0

    async def run(self, nodes: Sequence[str], gateways: Sequence[str] = ()) -> None:
        """Ask all ``nodes``; each is answered for, or lost, when this returns."""
        if not gateways:
            await asyncio.gather(*(self._direct(node) for node in nodes))
            return
        from ClusterShell.NodeSet import NodeSet

        shares = NodeSet.fromlist(nodes).split(min(len(gateways), len(nodes)))
        await asyncio.gather(*(self._through(g, list(share)) for g, share in zip(gateways, shares, strict=False)))

    def stop(self, number: int) -> None:
        """End all connections: what runs at their other ends ends with them."""
        self._stopped = number
        for process in self._processes:
            _signal(process, signal.SIGTERM)

    async def _direct(self, node: str, before: Text | None = None) -> None:
        async with self._lanes:
            left = {node}
            try:
                await self._converse(node, msgspec.structs.replace(self._ask, node=node), self._ways.seconds, left)
            except _Trouble as e:
                why = e.why if before is None else Text(f"{e.why.en} ({before.en})", f"{e.why.zh}（{before.zh}）")
                if left:
                    await self._sink.lost(node, e.reason_code, why)

    async def _through(self, gateway: str, nodes: list[str]) -> None:
        """The share of one gateway; what it does not answer for is asked directly."""
        left = set(nodes)
        waves = -(-len(nodes) // self._ways.fanout)
        seconds = self._ways.seconds * waves + RELAY_GRACE
        relay = dialog.Relay(msgspec.structs.replace(self._ask, seconds=seconds), nodes, self._ways)
        try:
            await self._converse(gateway, relay, seconds + RELAY_GRACE, left)
            return
        except _Trouble as e:
            before = Text("gateway {g}: {w}", "网关 {g}：{w}").fill(g=gateway, w=e.why)
        rest = [node for node in nodes if node in left]
        if rest and not self._stopped:
            self._sink.remark(
                Text("{b}; its {n} nodes are asked directly", "{b}；改为直接连接其 {n} 个节点").fill(
                    b=before, n=len(rest)
                )
            )
        await asyncio.gather(*(self._direct(node, before) for node in rest))

    # ---- one connection

    async def _converse(self, host: str, message: dialog.Ask | dialog.Relay, seconds: float, left: set[str]) -> None:
        """Start our process on ``host`` and hear it out. Names are taken out of ``left`` as they are answered for.
        Raises _Trouble when some remain."""
        self._refuse_when_stopped()
        environ = os.environ | ({"SSH_ASKPASS_REQUIRE": "never"} if self._door is None else self._door.environ)
        try:
            process = await asyncio.create_subprocess_exec(
                *ssh_command(host, self._ways, password=self._door is not None),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environ,
                start_new_session=True,  # a Ctrl-C is ours to pass on; and no ssh finds a terminal to ask
            )
        except OSError as e:
            raise _Trouble("missing_tool", Text("ssh: {e}", "ssh：{e}").fill(e=e.strerror)) from e
        self._processes.add(process)
        talk = _Talk(process, min(dialog.NODE_TOTAL * len(left), wire.MAX_TOTAL))
        trouble: _Trouble | None = None
        try:
            await asyncio.wait_for(self._talk(talk, message, left), seconds)
        except asyncio.TimeoutError:
            talk.timed_out = seconds
        except _Trouble as e:
            trouble = e
        except (_EndedError, OSError):
            pass  # its exit code and its words say why
        except wire.WireError as e:
            talk.nonsense = str(e)
        except Exception as e:  # whatever one node makes of us, the others go on
            trouble = _Trouble("error", bug(e))
        finally:
            await self._end(process, talk)
            self._processes.discard(process)
        refused = "Permission denied" in talk.stderr.decode(errors="replace")
        asked = self._door.over(process.pid, host, refused=refused) if self._door is not None else None
        if not left:
            return
        self._refuse_when_stopped()
        raise trouble or talk.trouble(asked)

    def _refuse_when_stopped(self) -> None:
        if self._stopped:
            name = signal.Signals(self._stopped).name
            raise _Trouble("aborted", Text("stopped by {s} before it answered", "在其回应之前被 {s} 中断").fill(s=name))

    async def _talk(self, talk: _Talk, message: dialog.Ask | dialog.Relay, left: set[str]) -> None:
        await talk.until_mark()
        if self._door is not None:
            self._door.accepted(talk.process.pid)
        line = talk.line
        ready = await line.receive(dialog.from_node)
        if isinstance(ready, dialog.Ready) and ready.version != __version__:
            raise _Trouble(
                "unsupported",
                Text(
                    "it has cwai-bench {v}, this is {o}; install the same version there",
                    "其 cwai-bench 版本为 {v}，本机为 {o}；请安装同一版本",
                ).fill(v=_clean(ready.version), o=__version__),
            )
        if not isinstance(ready, dialog.Ready):
            return
        await line.send(message)
        while True:
            said = await line.receive(dialog.from_node)
            if isinstance(said, dialog.Facts | dialog.Lost) and said.node not in left:
                raise wire.WireError(f"it answers for {said.node!r}, of which it was not asked")
            if isinstance(said, dialog.Facts):
                await self._take(line, said)
                left.discard(said.node)
            elif isinstance(said, dialog.Lost):
                await self._sink.lost(said.node, said.reason_code, _bounded(said.why))
                left.discard(said.node)
            else:
                return

    async def _take(self, line: wire.Line, facts: dialog.Facts) -> None:
        """Get the texts that nobody has sent so far, and give it all to the sink."""
        names = parcel.digests(bytes(line) for line in facts.lines)
        mine = [name for name in names if name not in self._texts and name not in self._coming]
        sent = asyncio.get_running_loop().create_future()
        self._coming.update(dict.fromkeys(mine, sent))
        try:
            await self._fetch(line, mine)
        finally:
            for name in mine:
                del self._coming[name]
            sent.set_result(None)
        others = {self._coming[name] for name in names if name in self._coming}
        if others:
            await asyncio.wait(others, timeout=min(OTHERS_SECONDS, self._ways.seconds / 4))
        await self._fetch(line, [name for name in names if name not in self._texts])
        if any(name not in self._texts for name in names):
            raise wire.WireError("a text of its facts did not come")
        await self._sink.answered(facts, self._texts)
        await line.send(dialog.Taken())

    async def _fetch(self, line: wire.Line, wanted: list[str]) -> None:
        if not wanted:
            return
        await line.send(dialog.Wanted(wanted))
        while True:
            message = await line.receive(dialog.from_node)
            if not isinstance(message, dialog.Texts):
                raise _EndedError
            self._texts.update((parcel.digest(text), text) for text in message.texts)
            if not message.more:
                return

    async def _end(self, process: asyncio.subprocess.Process, talk: _Talk) -> None:
        """Close our end, and see to it that the ssh is gone."""
        assert process.stdin is not None
        process.stdin.close()
        sign: signal.Signals | None = signal.SIGTERM if self._stopped or talk.timed_out or talk.nonsense else None
        for following in (signal.SIGTERM, signal.SIGKILL, None):
            if sign is not None:
                _signal(process, sign)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), END_GRACE)
                break
            sign = following
        await talk.close()
        # Its pipes, too, be there unread bytes in them or somebody who holds them; asyncio has no other way to say so.
        process._transport.close()  # type: ignore[attr-defined]


class _Talk:
    """One ssh process: what it said outside of the dialog, and what that means when the dialog came to nothing."""

    def __init__(self, process: asyncio.subprocess.Process, limit: int) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.line = wire.Line(process.stdout, process.stdin, limit)
        self.noise = bytearray()
        self.stderr = bytearray()
        self.marked = False
        self.timed_out = 0.0
        self.nonsense = ""
        self._stderr_task = asyncio.ensure_future(self._hear_stderr())

    async def _hear_stderr(self) -> None:
        assert self.process.stderr is not None
        with contextlib.suppress(OSError):
            while part := await self.process.stderr.read(4096):
                self.stderr += part
                del self.stderr[:-STDERR_LIMIT]

    async def close(self) -> None:
        """After the process has ended. What it left behind on a node may hold its stderr: do not wait for that."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stderr_task, 0.5)

    async def until_mark(self) -> None:
        """Pass over what a login prints. Raises _EndedError when our process never speaks."""
        assert self.process.stdout is not None
        while not self.noise.endswith(dialog.MARK):
            try:
                self.noise += await self.process.stdout.readuntil(b"\n")
            except asyncio.IncompleteReadError as e:
                self.noise += e.partial
                raise _EndedError from e
            except asyncio.LimitOverrunError as e:
                self.noise += await self.process.stdout.read(e.consumed)
            if len(self.noise) > NOISE_LIMIT:
                raise wire.WireError(f"more than {NOISE_LIMIT >> 10} KiB before it spoke")
        self.marked = True

    def trouble(self, asked: Text | None) -> _Trouble:
        """Why the dialog ended too early. ``asked``: what ssh asked and was not told."""
        words = _words(bytes(self.stderr))
        code = self.process.returncode
        if self.timed_out:
            where = (
                Text("cwai-bench was at work there", "其上的 cwai-bench 仍在运行")
                if self.marked
                else Text("it had not begun to answer", "尚未开始回应")
            )
            why = Text(
                "no answer within {s:g} s: {w}; --node-timeout gives it longer",
                "{s:g} 秒内没有回应：{w}；可用 --node-timeout 延长",
            ).fill(s=self.timed_out, w=where)
            return _Trouble("timeout", _with(why, words))
        if asked is not None and ("Permission denied" in words or code == -signal.SIGTERM):
            return _Trouble("permission", _with(asked, words))
        if self.nonsense:
            why = Text("its answer makes no sense", "其回应无法理解")
            return _Trouble("error", _with(why, "; ".join(filter(None, [_clean(self.nonsense), words]))))
        if self.marked:
            why = Text("it ended in the middle of its answer", "在回应途中终止")
            return _Trouble("node_lost", _with(why, words))
        for pattern, reason_code, why in _MEANINGS:
            if re.search(pattern, self.stderr.decode(errors="replace")):
                return _Trouble(reason_code, _with(why, words))
        if code in (126, 127):
            why = Text(
                "cwai-bench cannot be started there: install it on its PATH, or give --remote-command",
                "无法在其上启动 cwai-bench：请安装到 PATH，或用 --remote-command 指定",
            )
            return _Trouble("missing_tool", _with(why, words))
        if code == 255:
            return _Trouble("node_lost", _with(Text("ssh could not reach it", "ssh 无法连接"), words))
        noise = _words(bytes(self.noise))
        why = Text("no answer of cwai-bench (exit code {c})", "没有 cwai-bench 的回应（退出码 {c}）").fill(c=code)
        return _Trouble("error", _with(why, "; ".join(filter(None, [words, noise]))))


_MEANINGS: list[tuple[str, ReasonCode, Text]] = [
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "error",
        Text(
            "its host key is another than the known one: find out why, then ssh-keygen -R NODE",
            "主机密钥与已知的不同：请查明原因，然后执行 ssh-keygen -R 节点",
        ),
    ),
    (
        r"Host key verification failed|host key is known for",
        "error",
        Text(
            "its host key is not known here: add it to known_hosts (ssh-keyscan, or log in once)",
            "主机密钥未知：请加入 known_hosts（ssh-keyscan，或先登录一次）",
        ),
    ),
    (
        r"Permission denied \(|Too many authentication failures",
        "permission",
        Text(
            "it does not let this user in: install a key there, or --ask-password",
            "拒绝登录：请在其上安装密钥，或使用 --ask-password",
        ),
    ),
    (
        r"Could not resolve hostname|Name or service not known",
        "node_lost",
        Text(
            "its name has no address: correct it, or DNS and /etc/hosts",
            "名称无法解析：请更正名称，或 DNS 与 /etc/hosts",
        ),
    ),
    (
        r"Connection refused",
        "node_lost",
        Text("it is up, but no sshd answers on that port", "节点在线，但该端口没有 sshd 应答"),
    ),
    (
        r"timed out|No route to host|Network is unreachable|Host is down",
        "node_lost",
        Text("it cannot be reached", "无法到达"),
    ),
    (
        r"unknown command 'answer'|未知命令 'answer'",
        "unsupported",
        Text("it has another version of cwai-bench: install the same one", "其 cwai-bench 版本不同：请安装同一版本"),
    ),
    (
        r"Connection (closed|reset)|kex_exchange_identification|closed by remote host",
        "node_lost",
        Text(
            "its sshd hung up: see its log (MaxStartups, memory)",
            "其 sshd 断开了连接：请查看其日志（MaxStartups、内存）",
        ),
    ),
]


def ssh_command(host: str, ways: dialog.Ways, *, password: bool) -> list[str]:
    """The whole command line. The person's options come first, and the first value counts; theirs and the person's
    configuration decide about host keys."""
    command = ["ssh", "-T", *(f"-o{option}" for option in ways.options)]
    command += ["-oLogLevel=ERROR", "-oForwardAgent=no", "-oForwardX11=no", "-oClearAllForwardings=yes"]
    command += [f"-oConnectTimeout={CONNECT_SECONDS}", "-oServerAliveInterval=15", "-oServerAliveCountMax=3"]
    command += ["-oBatchMode=no", "-oNumberOfPasswordPrompts=1"] if password else ["-oBatchMode=yes"]
    command += ["-l", ways.user] if ways.user else []
    return [*command, "--", host, remote_command(ways.command)]


def remote_command(given: str) -> str:
    """What the other end's shell is to run. By default the program at this one's own path, where it is there too (a
    shared file system), else the one on PATH."""
    if given:
        return f"{given} answer"
    here = shlex.quote(str(Path(sys.executable).parent / "cwai-bench"))
    return "exec sh -c " + shlex.quote(f"if [ -x {here} ]; then exec {here} answer; fi; exec cwai-bench answer")


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _words(raw: bytes) -> str:
    """The last lines of what was said, on one line."""
    lines = [line for part in raw.decode(errors="replace").splitlines() if (line := _clean(part).strip(" @"))]
    return "; ".join(lines)[-WORDS_LIMIT:]


def _clean(text: str) -> str:
    """Without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)[-WORDS_LIMIT:]


def _bounded(text: Text) -> Text:
    return Text(_clean(text.en), _clean(text.zh))


def _with(why: Text, words: str) -> Text:
    return Text(f"{why.en} [{words}]", f"{why.zh} [{words}]") if words else why


# ------------------------------------------------------------------------------------------------------ the front


class Progress(Protocol):
    """Where the front says how far it is."""

    def plan(self, plan: Plan, run_id: str, size: int, nodes: int) -> None: ...
    def answered(self, done: int, total: int, late: Text | None) -> None: ...
    def say(self, text: Text) -> None: ...


_records = msgspec.json.Decoder(FactsRecord)


class _Front:
    """The sink at the place where the command was typed: a journal for each node, in the spool until all is over."""

    def __init__(self, header: RunHeader, nodes: Sequence[str], progress: Progress) -> None:
        self.header, self.progress = header, progress
        self.nodes = {node: number for number, node in enumerate(nodes)}
        self.files: dict[str, bytes] = {}
        self.ends: list[NodeEnd] = []
        """Why a node has no journal."""
        self.late = dict.fromkeys(nodes)
        self.folder = journal.spool_dir() / header.run_id
        killed = Text("the run was killed before it answered", "运行在其回应之前被强行终止")
        self._spool(journal.ABSENT, journal.absent(header, [_no_answer(n, "aborted", killed) for n in nodes]))

    async def answered(self, facts: dialog.Facts, texts: Mapping[str, str]) -> None:
        node, rank = facts.node, self.nodes[facts.node]
        lines = parcel.unpack([bytes(line) for line in facts.lines], texts)
        found = [wire.decoded(_records, line).facts for line in lines]
        environment = dict(list(facts.environment.items())[:256])
        header = msgspec.structs.replace(
            self.header,
            node=node,
            writer="ssh",
            environment={_clean(k): _clean(v) for k, v in environment.items()},
        )
        now = time.time()
        records: list[Record] = [
            header,
            RankEvent(rank, node, now, "started"),
            *(FactsRecord(msgspec.structs.replace(part, node=node)) for part in found),
            RankEvent(rank, node, now, "finished"),
            NodeEnd(node, now),
        ]
        name = journal.file_name(node, str(rank))
        self.files[name] = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
        self._spool(name, self.files[name])
        self._tell(node)

    async def lost(self, node: str, reason_code: ReasonCode, why: Text) -> None:
        self.ends.append(_no_answer(node, reason_code, why))
        self._tell(node)

    def remark(self, text: Text) -> None:
        self.progress.say(text)

    def _tell(self, node: str) -> None:
        self.late.pop(node, None)
        self.tell()

    def tell(self) -> None:
        named = plain(", ".join(self.late)) if 0 < len(self.late) <= NAMES_SHOWN else None
        self.progress.answered(len(self.nodes) - len(self.late), len(self.nodes), named)

    def _spool(self, name: str, data: bytes) -> None:
        """So that a front that is killed leaves what it had (``cwai-bench report RUN``). A full disk ends no run."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, exist_ok=True)
            (self.folder / name).write_bytes(data)

    def drop_spool(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _no_answer(node: str, reason_code: ReasonCode, why: Text) -> NodeEnd:
    return NodeEnd(node, time.time(), lost=why, reason_code=reason_code)


def collect(
    order: Order,
    plan: Plan,
    nodes: Sequence[str],
    gateways: Sequence[str],
    ways: dialog.Ways,
    progress: Progress,
    password: str | None = None,
) -> Outcome:
    """Ask ``nodes`` for the checks of ``plan``, judge what came, publish it. A node of which nothing came is UNKNOWN by
    name. Raises UsageError when this machine has no ssh."""
    if shutil.which("ssh") is None:
        raise UsageError(
            Text("there is no ssh on this machine", "本机没有 ssh"),
            Text(
                "install the OpenSSH client, or use --hosts (mpirun)", "请安装 OpenSSH 客户端，或使用 --hosts（mpirun）"
            ),
        )
    return asyncio.run(_collect(order, plan, nodes, gateways, ways, progress, password))


async def _every_second(tell: Callable[[], None]) -> None:
    """A node that is late is named while it is waited for."""
    while True:
        await asyncio.sleep(1.0)
        tell()


async def _collect(
    order: Order,
    plan: Plan,
    nodes: Sequence[str],
    gateways: Sequence[str],
    ways: dialog.Ways,
    progress: Progress,
    password: str | None,
) -> Outcome:
    started = time.time()
    header = RunHeader(
        run_id=journal.new_run_id(order.run_type),
        run_type=order.run_type,
        node="",
        writer="",
        command=order.command,
        version=__version__,
        started=started,
        world_size=len(nodes),
        utc_offset=time.localtime(started).tm_gmtoff,
        plan=plan,
        environment={},
        settings=order.settings,
    )
    front = _Front(header, nodes, progress)
    # What only the judge and the publisher need stays here.
    needed = msgspec.structs.replace(order, criteria="", baseline="", command=[], store="", out="")
    ask = dialog.Ask(needed, header.run_id, "", plan, ways.seconds)
    stopped = 0
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    async with contextlib.AsyncExitStack() as stack:
        door = await stack.enter_async_context(Door(password)) if password is not None else None
        collector = Collector(ask, ways, front, door)

        def stop(number: int) -> None:
            nonlocal stopped
            stopped = number
            loop.remove_signal_handler(number)  # a second one ends this process at once
            collector.stop(number)

        for number in signals:
            loop.add_signal_handler(number, stop, number)
        progress.plan(plan, header.run_id, 0, len(nodes))
        telling = loop.create_task(_every_second(front.tell))
        await collector.run(nodes, gateways)
        telling.cancel()
    if front.ends:
        front.files[journal.ABSENT] = journal.absent(header, front.ends)
    # In a thread, so that a signal is seen: the report is written all the same, and a second one ends it.
    outcome = await loop.run_in_executor(None, finish.conclude, front.files, order, stopped)
    if outcome.folder:
        front.drop_spool()
    return outcome


__all__ = ["Collector", "collect", "remote_command", "ssh_command"]
