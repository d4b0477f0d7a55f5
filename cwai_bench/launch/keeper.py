"""The keeper of a node: owns what the node's ranks measured, and outlives them.

It is no MPI rank and lives in a session of its own, so that what ends the ranks does not end it. It

- holds the node's lock, an abstract socket that vanishes with it and answers who holds it;
- takes records and heartbeats from the ranks over another one, and writes the node's journal;
- tells a rank that died from one that was told to stop, and one that stands still from one that waits;
- brings the journal to the first keeper of the roster that answers, or merges and publishes itself.

Abstract sockets are scoped to the network namespace, as ports are: two containers with networks of their own are two
nodes here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from cwai_bench import __version__, journal
from cwai_bench.launch import finish, parcel, stuck, wire
from cwai_bench.launch.order import Opening, Order, Outcome, Peer
from cwai_bench.model import NodeEnd, RankEvent, RankState, Scalar
from cwai_bench.text import Text, plain

_Part = TypeVar("_Part", bytes, str)

LOCK = "\0cwai-bench-node"
BEAT_SECONDS = 0.5
SILENT_SECONDS = 3.0
"""A rank beats from a thread of its own: this long without a beat means that the process stands still."""
OVERDUE_GRACE = 1.0
STILL_PERIOD, STILL_FRESH = 1.0, 2.5
"""How often a keeper whose ranks all stand still says so, and for how long that holds."""
LAUNCHER_GRACE = 1.0
"""After a death, how long the launcher may take to end the other ranks before the keeper does."""
TERM_GRACE = 0.7
ABNORMAL_WAIT = 3.0
"""How long the merging keeper waits for the others after an abnormal end; a report is due within 5 s of a death."""
NORMAL_WAIT = 30.0
FIRST_RANK_WAIT = 60.0
CONNECT_PATIENCE = 1.0
LEAVING_SECONDS = 2.0
"""How long a node that another run holds is asked for again."""


# ------------------------------------------------------------------------------- rank and its keeper


class Hello(msgspec.Struct, tag="hello"):
    rank: int
    pid: int


class Open(msgspec.Struct, tag="open"):
    opening: Opening
    ranks: list[int]
    """The ranks of this node, so that a keeper knows for whom it waits."""


class Entry(msgspec.Struct, tag="entry"):
    """One record for the journal, encoded."""

    record: msgspec.Raw


class Beat(msgspec.Struct, tag="beat"):
    """Alive. ``left``: seconds until the item's deadline."""

    item: str
    left: float
    progress: dict[str, Scalar]


class SignalSeen(msgspec.Struct, tag="signal"):
    number: int


class Bye(msgspec.Struct, tag="bye"):
    """The rank has done what it could and waits for the verdict."""

    state: RankState
    detail: Text | None = None
    interrupted: int = 0


FromRank = Hello | Open | Entry | Beat | SignalSeen | Bye


class Welcome(msgspec.Struct, tag="welcome"):
    """``refusal``: why this node cannot be used now. ``version``: of the keeper."""

    peer: Peer
    version: str
    refusal: Text | None = None


class Verdict(msgspec.Struct, tag="verdict"):
    outcome: Outcome | None
    trouble: Text | None = None


ToRank = Welcome | Verdict
from_rank: msgspec.json.Decoder[FromRank] = msgspec.json.Decoder(FromRank)
to_rank: msgspec.json.Decoder[ToRank] = msgspec.json.Decoder(ToRank)


# ------------------------------------------------------------------------------- keeper and keeper


class Chunk(msgspec.Struct, tag="chunk"):
    """Lines of the journal, packed (see parcel.py)."""

    lines: list[msgspec.Raw]


class Offered(msgspec.Struct, tag="offered"):
    """All lines are sent: which texts are wanted?"""


class Wanted(msgspec.Struct, tag="wanted"):
    """The answer: digests of the texts that nobody has sent yet, and whether the opening of the run is not known."""

    texts: list[str]
    opening: bool


class Texts(msgspec.Struct, tag="texts"):
    texts: list[str]


class Delivered(msgspec.Struct, tag="delivered"):
    """Everything is sent. ``name``: of the journal file."""

    peer: Peer
    name: str
    opening: Opening | None


class Abort(msgspec.Struct, tag="abort"):
    """Something is wrong elsewhere: stop your ranks, then deliver."""

    sender: str


class Still(msgspec.Struct, tag="still"):
    """To the first keeper of the roster: none of my ranks gets any further; where they stand."""

    sender: str
    ranks: list[stuck.Standing]


class Suspect(msgspec.Struct, tag="suspect"):
    """The answer to the keeper of ``rank``, once all keepers have said so: it is the one that holds up the others."""

    rank: int
    detail: Text


class AskOrder(msgspec.Struct, tag="ask"):
    """Rank 0 to the front: what was ordered?"""


class Ordered(msgspec.Struct, tag="order"):
    order: Order


class Result(msgspec.Struct, tag="result"):
    outcome: Outcome


class Failure(msgspec.Struct, tag="failure"):
    trouble: Text


Word = Abort | Still | Suspect
"""What keepers tell one another while the run goes on; nothing is answered on the line."""
BetweenKeepers = Chunk | Offered | Wanted | Texts | Delivered | Word | AskOrder | Ordered | Result | Failure
between_keepers: msgspec.json.Decoder[BetweenKeepers] = msgspec.json.Decoder(BetweenKeepers)


class Holder(msgspec.Struct):
    """Who holds a node: what the lock answers."""

    run_id: str
    pid: int
    user: str
    since: float


class _Rank:
    """What the keeper knows of one rank of its node."""

    def __init__(self, rank: int, pid: int, writer: asyncio.StreamWriter) -> None:
        self.rank, self.pid, self.writer = rank, pid, writer
        self.last_beat = self.moved = time.monotonic()
        self.item = ""
        self.overdue_at = float("inf")
        self.progress: dict[str, Scalar] = {}
        self.signalled = 0
        self.over = False
        self.bye: Bye | None = None
        self.judged = False

    def heard(self, message: Beat | Entry) -> None:
        """It got further if it is elsewhere, or has something for the journal."""
        if isinstance(message, Entry) or (message.item, message.progress) != (self.item, self.progress):
            self.moved = self.last_beat

    def standing(self, node: str) -> stuck.Standing:
        now = time.monotonic()
        return stuck.Standing(
            self.rank,
            node,
            self.item,
            self.progress,
            process_state(self.pid),
            now - self.moved,
            now - self.last_beat,
        )

    def stands_still(self) -> Text | None:
        """Why this process makes no progress of any kind, or None when it is alive."""
        state = process_state(self.pid)
        if state in stuck.STOPPED:
            return Text("the process is stopped (state T)", "进程已被暂停（状态 T）")
        silent = time.monotonic() - self.last_beat
        if silent > SILENT_SECONDS:
            return Text("no heartbeat for {s:.0f} s (process state {p})", "{s:.0f} 秒没有心跳（进程状态 {p}）").fill(
                s=silent, p=state or "?"
            )
        return None


def process_state(pid: int) -> str:
    """The state letter of a process (``R``, ``S``, ``D``, ``T``, ``Z`` …), or ``""`` when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


class Merger:
    """Collects the journals of a run from the keepers, and concludes once all are in or time is up."""

    def __init__(self, order: Order | None = None) -> None:
        self.order = order
        """What was ordered, for rank 0 to ask for; a keeper is told it by its ranks."""
        self.files: dict[str, bytes] = {}
        self.texts: dict[str, str] = {}
        """Long texts of all journals, by digest."""
        self.arrived: dict[str, Peer] = {}
        self.gone: set[str] = set()
        """Keepers that do not answer: nobody waits for them, and their journals count as missing."""
        self.opening: Opening | None = None
        self.changed = asyncio.Event()
        self.outcome: Outcome | None = None
        self.trouble: Text | None = None
        self.stopped = 0
        """The signal by which a person stopped the run here, at the front. Ranks may have been told by another."""
        self.settled = asyncio.Event()
        self.answering = 0

    def take(self, delivered: Delivered, lines: list[bytes]) -> None:
        self.files[delivered.name] = b"".join(line + b"\n" for line in lines)
        self.arrived[delivered.peer.id] = delivered.peer
        self.opening = self.opening or delivered.opening
        self.changed.set()

    def expected(self) -> list[Peer]:
        """The keepers that have a journal: the roster without a front, which has none."""
        return [p for p in self.opening.roster if p.node] if self.opening else []

    def complete(self) -> bool:
        return self.opening is not None and all(p.id in self.arrived or p.id in self.gone for p in self.expected())

    async def wait(self, deadline: Callable[[], float]) -> None:
        """Until all journals are in, or ``deadline()`` (monotonic, asked again and again) has passed."""
        while not self.complete() and time.monotonic() < deadline():
            self.changed.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.changed.wait(), 0.1)

    def conclude(self) -> None:
        """Merge, judge, render and publish. Never raises: what went wrong is ``trouble``, for whoever waits."""
        if self.opening is None:
            self.trouble = Text("no rank got as far as measuring", "没有任何进程开始测量")
        else:
            never_came = Text("its journal never came", "未收到其日志")
            missing = [
                NodeEnd(p.node, time.time(), lost=never_came, reason_code="node_lost")
                for p in self.expected()
                if p.id not in self.arrived
            ]
            if missing:
                self.files[journal.ABSENT] = journal.absent(self.opening.header, missing)
            try:
                self.outcome = finish.conclude(self.files, self.opening.order, self.stopped)
            except Exception as e:  # the run is in the journals; a bug or a bad file here must not lose it
                show = getattr(e, "show", None)
                en, zh = (show("en"), show("zh")) if show else (f"{type(e).__name__}: {e}",) * 2
                self.trouble = Text(
                    f"the report could not be made: {en}\n  → the journals are kept: cwai-bench report "
                    f"{self.opening.header.run_id}",
                    f"无法生成报告：{zh}\n  → 日志已保留：cwai-bench report {self.opening.header.run_id}",
                )
        self.settled.set()

    async def serve(self, line: wire.Sealed, heed: Callable[[Word], None]) -> None:
        """One keeper on the line: take its journal, and answer with the result when there is one. ``heed`` hears what
        else it says."""
        lines: list[bytes] = []
        while True:
            message = await line.receive(between_keepers)
            if message is None:
                return
            if isinstance(message, Chunk):
                lines += [bytes(raw) for raw in message.lines]
            elif isinstance(message, Offered):
                unseen = [name for name in parcel.digests(lines) if name not in self.texts]
                await line.send(Wanted(unseen, self.opening is None))
            elif isinstance(message, Texts):
                self.texts.update((parcel.digest(text), text) for text in message.texts)
            elif isinstance(message, AskOrder):
                if self.order is not None:
                    await line.send(Ordered(self.order))
                    await line.finish()
                return
            elif isinstance(message, Word):
                heed(message)
                return
            elif isinstance(message, Delivered):
                self.answering += 1
                try:
                    self.take(message, parcel.unpack(lines, self.texts))
                    await self.settled.wait()
                    await line.send(Result(self.outcome) if self.outcome else Failure(self.trouble or plain("?")))
                    await line.finish()
                finally:
                    self.answering -= 1
                return

    async def answered(self) -> None:
        """Until every keeper that waits has our answer, for two seconds at most."""
        end = time.monotonic() + 2.0
        while self.answering and time.monotonic() < end:
            await asyncio.sleep(0.02)


async def listen(
    merger: Merger, secret: Callable[[], str], identity: str, heed: Callable[[Word], None]
) -> tuple[asyncio.AbstractServer, int]:
    """Serve other keepers on a port of the system's choice. Strangers are dropped; see wire.py."""
    pending = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal pending
        if not secret() or pending >= 256:
            writer.close()
            return
        pending += 1
        try:
            line = await wire.accept(reader, writer, secret(), identity)
        except (wire.WireError, OSError, asyncio.TimeoutError):
            writer.close()
            return
        finally:
            pending -= 1
        with contextlib.suppress(wire.WireError, OSError):
            await merger.serve(line, heed)
        line.close()

    server = await asyncio.start_server(talk, "0.0.0.0", 0)
    return server, server.sockets[0].getsockname()[1]


class Keeper:
    """One node's keeper. ``run`` returns when the verdict has been told to all who wait for it."""

    def __init__(self, key: str, node: str, lock: bool) -> None:
        self.key, self.node, self.lock = key, node, lock
        self.id = os.urandom(6).hex()
        self.started = time.time()
        self.ranks: dict[int, _Rank] = {}
        self.expected_ranks: set[int] = set()
        self.opening: Opening | None = None
        self.writer: journal.Writer | None = None
        self.refusal: Text | None = None
        self.merger = Merger()
        self.aborting: asyncio.Task[None] | None = None
        self.abort_started = float("inf")
        self.still: dict[str, tuple[float, list[stuck.Standing]]] = {}
        """Of keepers whose ranks all stand still: when they said so last, and what. Kept by the first of the roster."""
        self.say_still_at = 0.0
        self.telling: set[asyncio.Task[None]] = set()
        self.interrupted = 0
        self.peer = Peer(self.id, node, [], 0)
        self.lock_socket: socket.socket | None = None

    # ---- life

    async def run(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop)
        ranks = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            ranks.bind(self.key)
        except OSError:
            return  # another rank's keeper was faster: that one keeps this node
        lock_server = await self._take_lock() if self.lock else None
        tcp, port = await listen(self.merger, self._secret, self.id, self._heed)
        self.peer = Peer(self.id, self.node, addresses(), port)
        server = await asyncio.start_unix_server(self._rank_line, sock=ranks)  # only now can the welcome be answered
        try:
            await self._until_ranks_are_over()
            if self.opening is not None:
                await self._conclude(self.opening)
            await self._tell_ranks()
        finally:
            server.close()
            tcp.close()
            if lock_server is not None:
                lock_server.close()

    def _stop(self) -> None:
        """A person, or the end of the allocation, stops the run: conclude with what is there."""
        self.interrupted = self.interrupted or signal.SIGTERM
        self._abort_soon()

    def _secret(self) -> str:
        return self.opening.secret if self.opening else ""

    async def _take_lock(self) -> asyncio.AbstractServer | None:
        try:
            return await hold_node(lambda: self.opening.header.run_id if self.opening else "")
        except OSError:
            self.refusal = who_holds(self.node)
            return None

    # ---- ranks

    async def _rank_line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if _peer_uid(writer) not in (os.getuid(), 0):
            writer.close()
            return
        rank: _Rank | None = None
        try:
            while (payload := await wire.receive(reader)) is not None:
                message = wire.decoded(from_rank, payload)
                if isinstance(message, Hello):
                    rank = self.ranks[message.rank] = _Rank(message.rank, message.pid, writer)
                    _send(writer, Welcome(self.peer, __version__, self.refusal))
                elif rank is not None:
                    self._from_rank(rank, message)
        except (wire.WireError, OSError) as e:
            if rank is not None:
                self._event(rank, "failed", plain(f"{type(e).__name__}: {e}"))
        if rank is not None:
            self._rank_gone(rank)

    def _from_rank(self, rank: _Rank, message: FromRank) -> None:
        rank.last_beat = time.monotonic()
        if isinstance(message, Open):
            self._open(message)
        elif isinstance(message, Entry):
            rank.heard(message)
            if self.writer is not None:
                self.writer.write_line(bytes(message.record))
        elif isinstance(message, Beat):
            rank.heard(message)
            rank.item, rank.progress = message.item, message.progress
            rank.overdue_at = time.monotonic() + message.left + OVERDUE_GRACE
        elif isinstance(message, SignalSeen):
            rank.signalled = message.number
            if not rank.judged:  # not by us
                self._event(rank, "signalled", signal_number=message.number)
        elif isinstance(message, Bye):
            rank.bye, rank.over = message, True
            if rank.judged:
                return  # we told it to stop, and have said why
            self.interrupted = self.interrupted or message.interrupted
            self._event(rank, message.state, message.detail, signal_number=message.interrupted)
            if message.state == "failed" or message.interrupted:
                self._abort_soon()

    def _open(self, message: Open) -> None:
        if self.opening is not None:
            return
        self.opening = message.opening
        self.expected_ranks = set(message.ranks)
        header = msgspec.structs.replace(message.opening.header, node=self.node, writer=self.id)
        name = journal.file_name(self.node, self.id)
        self.writer = journal.Writer(journal.spool_dir() / header.run_id / name)
        self.writer.write(header)
        for rank in sorted(self.ranks.values(), key=lambda r: r.rank):
            self._event(rank, "started")

    def _event(self, rank: _Rank, state: RankState, detail: Text | None = None, signal_number: int = 0) -> None:
        if self.writer is not None:
            self.writer.write(
                RankEvent(
                    rank.rank,
                    self.node,
                    time.time(),
                    state,
                    rank.item,
                    detail,
                    signal_number,
                    rank.pid,
                    rank.progress,
                )
            )

    def _rank_gone(self, rank: _Rank) -> None:
        if rank.over:
            return
        rank.over = True
        if not rank.signalled and not rank.judged:  # nobody told it to stop, and we did not know of any trouble
            self._event(rank, "died", Text("the process ended without a word", "进程无任何消息即终止"))
        self._abort_soon()

    # ---- when something is wrong

    def _abort_soon(self) -> None:
        if self.aborting is None:
            self.abort_started = time.monotonic()
            self.aborting = asyncio.get_running_loop().create_task(self._abort())

    async def _abort(self) -> None:
        """Tell the other keepers, give the launcher a moment to end the ranks, then end our own."""
        opening = self.opening
        telling: list[Awaitable[None]] = []
        if opening is not None:
            telling = [self._tell(p, Abort(self.id), opening) for p in opening.roster if p.id != self.id and p.node]
        told = asyncio.gather(*telling)
        self._judge_the_still()
        for number, grace in ((0, LAUNCHER_GRACE), (signal.SIGTERM, TERM_GRACE), (signal.SIGKILL, TERM_GRACE)):
            for rank in self.ranks.values():
                if number and not rank.over:
                    rank.judged = True
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(rank.pid, number)
            end = time.monotonic() + grace
            while time.monotonic() < end and not all(r.over for r in self.ranks.values()):
                await asyncio.sleep(0.02)
        await told

    async def _tell(self, peer: Peer, word: Word, opening: Opening) -> None:
        with contextlib.suppress(OSError, wire.WireError, asyncio.TimeoutError):
            line = await wire.connect(peer.addresses, peer.port, opening.secret, CONNECT_PATIENCE, peer.id)
            await line.send(word)
            line.close()

    def _heed(self, word: Word) -> None:
        if isinstance(word, Abort):
            self._abort_soon()
        elif isinstance(word, Still):
            self.still[word.sender] = time.monotonic(), word.ranks
            self._look_for_who_is_stuck()
        elif (rank := self.ranks.get(word.rank)) is not None and not rank.over and not rank.judged:
            rank.judged = True
            self._event(rank, "stalled", word.detail)
            self._abort_soon()

    def _judge_the_still(self) -> None:
        """Name the ranks of this node that stand still; called once, when the run is being given up."""
        for rank in self.ranks.values():
            if rank.over or rank.judged:
                continue
            why = rank.stands_still()
            if why is not None:
                rank.judged = True
                self._event(rank, "stalled", why)

    def _watch(self) -> None:
        now = time.monotonic()
        late = [r for r in self.ranks.values() if not r.over and now > r.overdue_at]
        if self.aborting is not None:
            return
        if not late:
            self._say_if_still(now)
            return
        self._judge_the_still()
        for rank in late:
            if not rank.judged:
                rank.judged = True
                self._event(rank, "overdue", Text("still in this item at its deadline", "到截止时间仍未完成该项"))
        self._abort_soon()

    def _say_if_still(self, now: float) -> None:
        """Tell the first keeper of the roster that no rank of this node gets any further in its collective."""
        left = [r for r in self.ranks.values() if not r.over]
        if now < self.say_still_at or any(now - r.moved < stuck.STUCK_SECONDS for r in left):
            return
        if not left or any(not self._operation(r.item) for r in left):
            return
        self.say_still_at = now + STILL_PERIOD
        self._send_word(self._keepers()[0], Still(self.id, [r.standing(self.node) for r in left]))

    def _look_for_who_is_stuck(self) -> None:
        """Once all keepers say that nothing moves: name who holds up the others to the keeper of that rank."""
        now, keepers = time.monotonic(), self._keepers()
        said = {id: ranks for id, (at, ranks) in self.still.items() if now - at < STILL_FRESH}
        if self.opening is None or self.aborting is not None or not said.keys() >= {p.id for p in keepers}:
            return
        everybody = [standing for ranks in said.values() for standing in ranks]
        for number, detail in stuck.suspects(everybody, self._operation(everybody[0].item)):
            keeper = next(p for p in keepers if any(r.rank == number for r in said[p.id]))
            self._send_word(keeper, Suspect(number, detail))

    def _operation(self, item: str) -> str:
        """Of the collective that ``item`` measures; empty where it measures none."""
        probes = self.opening.header.plan.probes if self.opening else []
        return next((str(spec.parameters.get("operation", "")) for spec in probes if spec.id == item), "")

    def _keepers(self) -> list[Peer]:
        """The roster without a front, which has no ranks."""
        return [p for p in self.opening.roster if p.node] if self.opening else []

    def _send_word(self, peer: Peer, word: Word) -> None:
        if peer.id == self.id:
            self._heed(word)
        elif self.opening is not None:
            task = asyncio.get_running_loop().create_task(self._tell(peer, word, self.opening))
            self.telling.add(task)
            task.add_done_callback(self.telling.discard)

    async def _until_ranks_are_over(self) -> None:
        give_up = time.monotonic() + FIRST_RANK_WAIT
        while True:
            await asyncio.sleep(0.02 if self.aborting else 0.05)
            self._watch()
            known = set(self.ranks) >= self.expected_ranks
            if self.ranks and known and all(r.over for r in self.ranks.values()):
                break
            if not self.ranks and time.monotonic() > give_up:
                break
        if self.aborting is not None:
            await self.aborting

    # ---- the end

    async def _conclude(self, opening: Opening) -> None:
        assert self.writer is not None
        self.writer.write(NodeEnd(self.node, time.time(), self.interrupted))
        self.writer.close()
        for peer in opening.roster:
            if peer.id == self.id:
                break
            result = await self._deliver(peer, opening)
            if isinstance(result, Result):
                self.merger.outcome = result.outcome
                self._drop_spool()
                return
            if isinstance(result, Failure):
                self.merger.trouble = result.trouble
                return
            self.merger.gone.add(peer.id)
        self.merger.take(Delivered(self.peer, self.writer.path.name, opening), self.writer.lines)
        patience = ABNORMAL_WAIT if self.aborting else NORMAL_WAIT
        end = time.monotonic() + patience
        await self.merger.wait(lambda: end if not self.aborting else min(end, self.abort_started + ABNORMAL_WAIT + 1))
        self.merger.conclude()
        if self.merger.outcome is not None and self.merger.outcome.folder:
            self._drop_spool()

    async def _deliver(self, peer: Peer, opening: Opening) -> Result | Failure | None:
        """The journal to another keeper; its answer, or None when it is not there (any more)."""
        assert self.writer is not None
        line = None
        for pause in (0.2, 0.5, 0.0):  # its ranks may be a moment behind ours in handing it the secret
            try:
                line = await wire.connect(peer.addresses, peer.port, opening.secret, CONNECT_PATIENCE, peer.id)
                break
            except (OSError, wire.WireError, asyncio.TimeoutError):
                await asyncio.sleep(pause)
        if line is None:
            return None
        lines, texts = parcel.pack(self.writer.lines)
        try:
            for batch in batches(lines):
                await line.send(Chunk([msgspec.Raw(raw) for raw in batch]))
            await line.send(Offered())
            asked = line.receive(between_keepers)
            wanted = await asyncio.wait_for(asked, NORMAL_WAIT)
            if not isinstance(wanted, Wanted):
                return None
            for some in batches([texts[name] for name in wanted.texts if name in texts]):
                await line.send(Texts(some))
            await line.send(Delivered(self.peer, self.writer.path.name, opening if wanted.opening else None))
            waiting = line.receive(between_keepers)
            answer = await asyncio.wait_for(waiting, NORMAL_WAIT * 2)
        except (OSError, wire.WireError, asyncio.TimeoutError):
            return None
        finally:
            line.close()
        return answer if isinstance(answer, Result | Failure) else None

    def _drop_spool(self) -> None:
        """The run is in the store: what is spooled is not needed any more."""
        assert self.writer is not None
        with contextlib.suppress(OSError):
            self.writer.path.unlink()
            self.writer.path.parent.rmdir()

    async def _tell_ranks(self) -> None:
        outcome, trouble = self.merger.outcome, self.writer.trouble if self.writer is not None else None
        if outcome is not None and trouble is not None and self.opening is not None:
            said = "\n".join(filter(None, [outcome.trouble, trouble.to(self.opening.order.lang)]))
            self.merger.outcome = msgspec.structs.replace(outcome, trouble=said)
        for rank in self.ranks.values():
            if rank.bye is not None:
                _send(rank.writer, Verdict(self.merger.outcome, self.merger.trouble))
            rank.writer.close()
            # Until all of it has left this process: drain() alone lets 64 KiB lie, and they would end with us.
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(rank.writer.wait_closed(), 2.0)
        await self.merger.answered()


def batches(parts: list[_Part]) -> Iterator[list[_Part]]:
    """``parts`` in lists that fit into a frame, whatever JSON makes of them."""
    batch: list[_Part] = []
    size = 0
    for part in parts:
        batch.append(part)
        size += len(part)
        if size > wire.MAX_FRAME // 16:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _send(writer: asyncio.StreamWriter, message: ToRank) -> None:
    writer.write(wire.frame(msgspec.json.encode(message)))


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    sock: socket.socket = writer.get_extra_info("socket")
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[1])


async def hold_node(run_id: Callable[[], str]) -> asyncio.AbstractServer:
    """Take this node's lock, and answer who holds it as long as the server lives. Raises OSError when it is taken, and
    still is a moment later: a run that has told its verdict may be just leaving."""
    started = time.time()

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        import pwd

        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = str(os.getuid())
        writer.write(msgspec.json.encode(Holder(run_id(), os.getpid(), user, started)))
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    end = time.monotonic() + LEAVING_SECONDS
    while True:
        try:
            return await asyncio.start_unix_server(answer, path=LOCK)
        except OSError:
            if time.monotonic() > end:
                raise
        await asyncio.sleep(0.05)


def holder_of_node() -> Holder | None:
    """Who holds this node now, or None. An answer that makes no sense is a holder without a name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(1.0)
        try:
            line.connect(LOCK)
        except OSError:
            return None
        try:
            return msgspec.json.decode(line.recv(4096), type=Holder)
        except (OSError, ValueError, RecursionError):
            return Holder("", 0, "?", 0.0)


def who_holds(node: str) -> Text:
    holder = holder_of_node()
    if holder is None:  # it has left in the meantime; the next try will do
        return Text("another run was just leaving {n}", "另一次运行刚刚离开 {n}").fill(n=node)
    return Text(
        "{n} is busy with run {r} of {u} (pid {p}, since {t})", "{n} 正被 {u} 的运行 {r} 占用（进程 {p}，开始于 {t}）"
    ).fill(
        n=node,
        r=holder.run_id or "?",
        u=holder.user,
        p=holder.pid,
        t=time.strftime("%H:%M:%S UTC", time.gmtime(holder.since)),
    )


def addresses() -> list[str]:
    """IPv4 addresses of this node, those of real networks first; loopback last, for processes on the same node."""
    import fcntl

    found: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _index, name in socket.if_nameindex():
            try:
                raw = fcntl.ioctl(probe.fileno(), 0x8915, struct.pack("256s", name.encode()[:15]))  # SIOCGIFADDR
            except OSError:
                continue
            found.append(socket.inet_ntoa(raw[20:24]))
    return sorted(dict.fromkeys(found), key=lambda a: a.startswith("127."))


def start(key: str, node: str, lock: bool) -> None:
    """Start a keeper in a session of its own; returns at once in the caller. Must come before MPI and before threads.

    It is forked twice, so that it is nobody's child, and shares none of the launcher's pipes: an mpirun waits for
    their end, and a keeper lives on.
    """
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.closerange(3, 4096)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.chdir("/")
        asyncio.run(Keeper(key, node, lock).run())
    except BaseException:  # nobody waits for this process, so what it died of is left where its journal is
        import traceback

        (journal.spool_dir() / f"keeper-{os.getpid()}.log").write_text(traceback.format_exc())
    finally:
        os._exit(0)
