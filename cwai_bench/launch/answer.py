"""What ssh starts on a node (``cwai-bench answer``): it reads this node's facts, or asks others as a gateway, and says
so on its standard output. It ends as soon as the collector has hung up, and takes all that it started along."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cwai_bench import __version__
from cwai_bench.errors import UsageError
from cwai_bench.launch import dialog, keeper, parcel, ssh, wire
from cwai_bench.launch.environment import environment
from cwai_bench.model import FactsRecord, ReasonCode
from cwai_bench.text import Text

FIRST_WORD_SECONDS = 60.0
END_SECONDS = 3.0
GUARD = b"cwai_bench.discover.guard"
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)

_Said = dialog.Ask | dialog.Relay | dialog.Wanted | dialog.Taken


class HungUpError(Exception):
    """The collector is gone, or something that makes no sense came from it."""


class Uplink:
    """The line to the collector. ``over`` is set when it has hung up, whatever is being done here at that moment."""

    def __init__(self, line: wire.Line) -> None:
        self._line = line
        self._heard: asyncio.Queue[_Said | None] = asyncio.Queue()
        self._one_at_a_time = asyncio.Lock()
        self.over = asyncio.Event()

    async def listen(self) -> None:
        with contextlib.suppress(OSError, wire.WireError):
            while (message := await self._line.receive(dialog.to_node)) is not None:
                self._heard.put_nowait(message)
        self._heard.put_nowait(None)
        self.over.set()

    async def hear(self) -> _Said:
        message = await self._heard.get()
        if message is None:
            raise HungUpError
        return message

    async def say(self, message: dialog.Ready | dialog.Lost | dialog.Done) -> None:
        async with self._one_at_a_time:
            await self._line.send(message)

    async def answered(self, facts: dialog.Facts, texts: Mapping[str, str]) -> None:
        """Hand over the facts of a node, and those of ``texts`` that are wanted."""
        async with self._one_at_a_time:
            await self._line.send(facts)
            while isinstance(said := await self.hear(), dialog.Wanted):
                batches = list(keeper.batches([texts[name] for name in said.texts if name in texts])) or [[]]
                for number, batch in enumerate(batches, 1):
                    await self._line.send(dialog.Texts(batch, more=number < len(batches)))
            if not isinstance(said, dialog.Taken):
                raise HungUpError

    async def lost(self, node: str, reason_code: ReasonCode, why: Text) -> None:
        await self.say(dialog.Lost(node, reason_code, why))

    def remark(self, text: Text) -> None:
        """A gateway of ours has no gateways."""


def main() -> int:
    """Answer what is asked on standard input. Raises UsageError for a person who typed this."""
    if sys.stdin.isatty():
        raise UsageError(
            Text(
                "cwai-bench answer is started by cwai-bench, over ssh", "cwai-bench answer 由 cwai-bench 通过 ssh 启动"
            ),
            Text(
                "on the node where you are: cwai-bench check --ssh NODES", "请在本机执行：cwai-bench check --ssh NODES"
            ),
        )
    # Our own ends, which no child inherits; what a library prints goes where it harms nothing.
    read, write = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    asyncio.run(_serve(read, write))
    raise AssertionError("_serve leaves by itself")


async def _serve(read: int, write: int) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", 0))
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(write, "wb", 0))
    transport.set_write_buffer_limits(0)  # then drain() waits until all has left this process
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    uplink = Uplink(wire.Line(reader, writer))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, uplink.over.set)
    writer.write(dialog.MARK)
    listening = loop.create_task(uplink.listen())
    working = loop.create_task(_answer(uplink))
    hung_up = loop.create_task(uplink.over.wait())
    await asyncio.wait({working, hung_up}, return_when=asyncio.FIRST_COMPLETED)
    code = 1
    if working.done():
        try:
            working.result()
            code = 0
        except (HungUpError, OSError):
            pass
        except Exception:  # ssh carries it to the collector, which shows its end
            traceback.print_exc()
    del listening
    end_children()
    sys.stderr.flush()
    os._exit(code)  # a reading thread may sit in a driver, and the loop would wait for it


async def _answer(uplink: Uplink) -> None:
    await uplink.say(dialog.Ready(__version__))
    said = await asyncio.wait_for(uplink.hear(), FIRST_WORD_SECONDS)
    if isinstance(said, dialog.Ask):
        await asyncio.wait_for(_read(said, uplink), said.seconds)
    elif isinstance(said, dialog.Relay):
        collector = ssh.Collector(said.ask, said.ways, uplink)
        await asyncio.wait_for(collector.run(said.nodes), said.ask.seconds)
    await uplink.say(dialog.Done())


async def _read(ask: dialog.Ask, uplink: Uplink) -> None:
    try:
        lock = await keeper.hold_node(lambda: ask.run_id)
    except OSError:
        await uplink.lost(ask.node, "busy", keeper.who_holds(ask.node))
        return
    try:
        loop = asyncio.get_running_loop()
        records = await loop.run_in_executor(None, _facts, ask)
        packed, texts = parcel.pack(map(msgspec.json.encode, records))
        await uplink.answered(dialog.Facts(ask.node, [msgspec.Raw(line) for line in packed], environment()), texts)
    finally:
        lock.close()


def _facts(ask: dialog.Ask) -> list[FactsRecord]:
    from cwai_bench.launch import rank

    read = [rank.read_facts(ask.node, ask.plan)]
    return [FactsRecord(facts) for facts in (*read, *rank.run_long(ask.order, ask.plan, ask.node, ask.run_id))]


def end_children() -> None:
    """Kill all that this process has started, and what those have, until nothing is left or three seconds are over: a
    process that sits in a driver cannot be killed. This process must be their subreaper.

    Guards of scripts and of vendors' tests are left alone with what they guard: they see the end of this process, and
    bring it to an end in order (discover/script.py).
    """
    end = time.monotonic() + END_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        found = _descendants()
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _descendants() -> set[int]:
    """Those that have no guard."""
    parents: dict[int, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if GUARD not in (process / "cmdline").read_bytes():
                parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


__all__ = ["HungUpError", "Uplink", "end_children", "main"]
