"""One of two processes that drive NCCL's net plugin through its table, as NCCL does: by dlopen, version by version.

Options come as JSON in the first argument; handles go out and come in as lines of standard output and input, as NCCL
carries them over a network of its own; the last line is what this end saw, as JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

HANDLE_BYTES = 128
POOL_BYTES = 12 << 20
OUTSTANDING = 40
"""Requests of one comm at once; NCCL has up to 32."""

_int, _pointer, _size = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t
_into = ctypes.POINTER(ctypes.c_void_p)
LOGGER = ctypes.CFUNCTYPE(None, _int, ctypes.c_ulong, ctypes.c_char_p, _int, ctypes.c_char_p, ctypes.c_char_p)
"""Variadic, in truth; the plugin gives one text behind the format."""


def _call(*arguments: Any) -> Any:
    return ctypes.CFUNCTYPE(_int, *arguments)


def _table(version: int) -> type[ctypes.Structure]:
    """The struct ``ncclNet_vN_t`` of NVIDIA/nccl, plugins/net/README.md: the order of its functions."""
    context = [_pointer] if version >= 11 else []
    size = _int if version == 8 else _size
    phandle = [_pointer] if version >= 10 else []
    init: list[Any] = [LOGGER]
    if version >= 10:
        init += [_pointer]
    if version >= 11:
        init = [_into, ctypes.c_uint64, _pointer, *init]
    config = [_pointer] if version == 10 else []
    fields: list[tuple[str, Any]] = [
        ("name", ctypes.c_char_p),
        ("init", _call(*init)),
        ("devices", _call(ctypes.POINTER(_int))),
        ("getProperties", _call(_int, _pointer)),
        ("listen", _call(*context, _int, _pointer, _into)),
        ("connect", _call(*context, _int, *config, _pointer, _into, _pointer)),
        ("accept", _call(_pointer, _into, _pointer)),
        ("regMr", _call(_pointer, _pointer, _size, _int, _into)),
        ("regMrDmaBuf", _pointer),
        ("deregMr", _call(_pointer, _pointer)),
        ("isend", _call(_pointer, _pointer, size, _int, _pointer, *phandle, _into)),
        ("irecv", _call(_pointer, _int, _into, ctypes.POINTER(size), ctypes.POINTER(_int), _into, *phandle, _into)),
        ("iflush", _call(_pointer, _int, _into, ctypes.POINTER(_int), _into, _into)),
        ("test", _call(_pointer, ctypes.POINTER(_int), ctypes.POINTER(_int))),
        ("closeSend", _call(_pointer)),
        ("closeRecv", _call(_pointer)),
        ("closeListen", _call(_pointer)),
        ("getDeviceMr", _pointer),
        ("irecvConsumed", _pointer),
    ]
    if version >= 9:
        fields.append(("makeVDevice", _pointer))
    if version >= 11:
        fields += [("finalize", _call(_pointer)), ("setNetAttr", _call(_pointer, _pointer))]
    return type(f"Table{version}", (ctypes.Structure,), {"_fields_": fields})


class Failed(Exception):
    """A call returned something else than ncclSuccess."""

    def __init__(self, name: str, result: int) -> None:
        super().__init__(f"{name}: {result}")
        self.result = result


class Plugin:
    """The table ``version`` of the library at ``path``, called as NCCL calls it. Raises Failed."""

    def __init__(self, path: str, version: int) -> None:
        self.version, self.log = version, list[str]()
        self._library = ctypes.CDLL(path)
        self._table: Any = _table(version).in_dll(self._library, f"ncclNetPlugin_v{version}")
        self._logger = LOGGER(lambda level, _, file, line, form, text: self._said(level, text))
        self._context = ctypes.c_void_p()
        with_context = [ctypes.byref(self._context), 1, None] if version >= 11 else []
        profiler = [None] if version >= 10 else []
        self._do("init", *with_context, self._logger, *profiler)
        count = ctypes.c_int()
        self._do("devices", ctypes.byref(count))
        assert count.value == 1
        self._before = [self._context] if version >= 11 else []

    def _said(self, level: int, text: bytes) -> None:
        self.log.append(f"{'WARN' if level == 2 else 'INFO'} {text.decode()}")

    def _do(self, name: str, *arguments: Any) -> None:
        result = getattr(self._table, name)(*arguments)
        if result != 0:
            raise Failed(name, result)

    def listen(self) -> tuple[bytes, ctypes.c_void_p]:
        handle, comm = ctypes.create_string_buffer(HANDLE_BYTES), ctypes.c_void_p()
        self._do("listen", *self._before, 0, handle, ctypes.byref(comm))
        return handle.raw, comm

    def connect(self, handle: ctypes.Array[ctypes.c_char]) -> ctypes.c_void_p | None:
        comm = ctypes.c_void_p()
        config = [ctypes.byref(ctypes.c_int(-1))] if self.version == 10 else []
        self._do("connect", *self._before, 0, *config, handle, ctypes.byref(comm), None)
        return comm if comm.value else None

    def accept(self, listening: ctypes.c_void_p) -> ctypes.c_void_p | None:
        comm = ctypes.c_void_p()
        self._do("accept", listening, ctypes.byref(comm), None)
        return comm if comm.value else None

    def register(self, comm: ctypes.c_void_p, address: int, size: int) -> ctypes.c_void_p:
        mhandle = ctypes.c_void_p()
        self._do("regMr", comm, address, size, 1, ctypes.byref(mhandle))
        return mhandle

    def isend(self, comm: ctypes.c_void_p, address: int, size: int, tag: int) -> int | None:
        request = ctypes.c_void_p()
        more = [None] if self.version >= 10 else []
        self._do("isend", comm, address, size, tag, None, *more, ctypes.byref(request))
        return request.value

    def irecv(self, comm: ctypes.c_void_p, address: int, size: int, tag: int) -> int | None:
        request, data, mhandle = ctypes.c_void_p(), ctypes.c_void_p(address), ctypes.c_void_p()
        length = (ctypes.c_int if self.version == 8 else ctypes.c_size_t)(size)
        more = [None] if self.version >= 10 else []
        self._do(
            *("irecv", comm, 1, ctypes.byref(data), ctypes.byref(length), ctypes.byref(ctypes.c_int(tag))),
            *(ctypes.byref(mhandle), *more, ctypes.byref(request)),
        )
        return request.value

    def test(self, request: int) -> int | None:
        """The bytes of a request that is done."""
        done, size = ctypes.c_int(), ctypes.c_int()
        self._do("test", request, ctypes.byref(done), ctypes.byref(size))
        return size.value if done.value else None

    def close(self, what: str, comm: ctypes.c_void_p) -> None:
        self._do(f"close{what}", comm)

    def finalize(self) -> None:
        if self.version >= 11:
            self._do("finalize", self._context)


@dataclass
class Message:
    size: int
    tag: int
    at: int
    """Where in the pool its bytes stand."""
    room: int
    """Bytes of the buffer that receives it."""


def plan(seed: str, count: int, largest: int) -> list[Message]:
    """What goes over a comm: both ends know it."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        size = chance.choice((0, chance.randint(1, 256), chance.randint(1, 100_000), chance.randint(1, largest)))
        found.append(
            Message(size, chance.randint(0, 3), chance.randint(0, POOL_BYTES - size), size + chance.randint(0, 99))
        )
    return found


@dataclass
class Stream:
    """One comm: what is still to go, and what is under way."""

    comm: ctypes.c_void_p
    messages: list[Message]
    next: int = 0
    under_way: deque[tuple[int, Message, Any]] = field(default_factory=deque)

    @property
    def over(self) -> bool:
        return self.next == len(self.messages) and not self.under_way


class Run:
    """Sends and receives everything that was planned. ``step`` makes what progress there is."""

    def __init__(self, plugin: Plugin, pool: bytearray) -> None:
        self.plugin, self.pool = plugin, pool
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(pool))
        self.sends: list[Stream] = []
        self.receives: list[Stream] = []
        self.wrong = self.messages = self.bytes = self.most = 0
        self.limit = 1 << 62
        """Messages of each comm that may be sent by now."""

    def step(self) -> None:
        for stream in self.receives:
            while stream.next < len(stream.messages) and len(stream.under_way) < OUTSTANDING:
                message = stream.messages[stream.next]
                into = ctypes.create_string_buffer(b"\xee" * message.room, message.room)
                request = self.plugin.irecv(stream.comm, ctypes.addressof(into), message.room, message.tag)
                if request is None:
                    break
                stream.under_way.append((request, message, into))
                stream.next += 1
            self.most = max(self.most, len(stream.under_way))
        for stream in self.sends:
            while stream.next < min(len(stream.messages), self.limit):
                message = stream.messages[stream.next]
                request = self.plugin.isend(stream.comm, self.base + message.at, message.size, message.tag)
                if request is None:
                    break
                stream.under_way.append((request, message, None))
                stream.next += 1
        for stream in (*self.sends, *self.receives):
            stream.under_way = deque(one for one in stream.under_way if not self._done(*one))

    def _done(self, request: int, message: Message, into: Any) -> bool:
        size = self.plugin.test(request)
        if size is None:
            return False
        self.wrong += size != message.size
        if into is not None:
            self.messages, self.bytes = self.messages + 1, self.bytes + message.size
            expected = self.pool[message.at : message.at + message.size] + b"\xee" * (message.room - message.size)
            self.wrong += into.raw != expected
        return True

    @property
    def over(self) -> bool:
        return all(stream.over for stream in (*self.sends, *self.receives))


def connections() -> Iterator[socket.socket]:
    """Of this process, over TCP: copies of its file descriptors."""
    for name in list(Path("/proc/self/fd").iterdir()):
        try:
            copy = os.dup(int(name.name))
        except OSError:
            continue
        try:
            found = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            continue
        with found:
            try:
                if found.family == socket.AF_INET and found.type == socket.SOCK_STREAM and found.getpeername():
                    yield found
            except OSError:
                continue


def plant(kind: str, chance: random.Random) -> bool:
    """``cut``: a connection ends. ``garble``: bytes that nobody sent come in the middle of what it carries."""
    victims = [each.dup() for each in connections()]
    done = False
    if victims:
        victim = chance.choice(victims)
        try:
            if kind == "cut":
                victim.shutdown(socket.SHUT_RDWR)
            else:
                victim.send(chance.randbytes(chance.randint(1, 200)), socket.MSG_DONTWAIT)
            done = True
        except OSError:
            pass
    for victim in victims:
        victim.close()
    return done


def meet(plugin: Plugin, comms: int, deadline: float) -> tuple[list[Any], list[Any], list[Any]]:
    """Listening, sending and receiving comms, as many of each. Raises TimeoutError."""
    listening = [plugin.listen() for _ in range(comms)]
    print(json.dumps([handle.hex() for handle, _ in listening]), flush=True)
    theirs = [ctypes.create_string_buffer(bytes.fromhex(text), HANDLE_BYTES) for text in json.loads(input())]
    sends: list[Any] = [None] * comms
    receives: list[Any] = [None] * comms
    while None in sends or None in receives:
        for i in range(comms):
            sends[i] = sends[i] or plugin.connect(theirs[i])
            receives[i] = receives[i] or plugin.accept(listening[i][1])
        if time.monotonic() > deadline:
            raise TimeoutError("the other end did not come")
        time.sleep(0.001)
    return [comm for _, comm in listening], sends, receives


def leave(saw: dict[str, Any]) -> NoReturn:
    """Tell, and end as a program in C does: the plugin's threads may still call the logger, which a Python that ends
    cannot bear."""
    print(json.dumps(saw), flush=True)
    ctypes.CDLL(None).exit(0)
    raise AssertionError


def main(options: dict[str, Any]) -> None:
    plugin = Plugin(options["plugin"], options["version"])
    comms, me, seed = options["comms"], options["me"], options["seed"]
    deadline = time.monotonic() + options["timeout"]
    saw: dict[str, Any] = {"failed": None, "planted": 0}
    pool = bytearray(random.Random(seed).randbytes(POOL_BYTES))
    run = Run(plugin, pool)
    try:
        listening, sends, receives = meet(plugin, comms, deadline)
    except (Failed, TimeoutError) as error:
        leave(saw | {"failed": str(error), "log": plugin.log})
    count, largest = options["messages"], options["largest"]
    theirs = me if options["alone"] else 1 - me
    run.sends = [Stream(comm, plan(f"{seed} {me} {i}", count, largest)) for i, comm in enumerate(sends)]
    run.receives = [Stream(comm, plan(f"{seed} {theirs} {i}", count, largest)) for i, comm in enumerate(receives)]
    for stream in run.sends:
        plugin.register(stream.comm, run.base, POOL_BYTES)
    chance = random.Random(f"{seed} {me} faults")
    try:
        began = time.monotonic()
        while not run.over:
            # Each fault while messages are under way, and nothing is sent after it before it is planted.
            more = saw["planted"] < options["faults"]
            run.limit = count * (saw["planted"] + 1) // (options["faults"] + 1) if more else count
            run.step()
            if more and all(stream.next >= run.limit for stream in run.sends):
                saw["planted"] += plant(options["fault"], chance)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{run.messages} messages of {comms * count}")
        saw["seconds"] = time.monotonic() - began
        if options["hold"]:
            input()
    except (Failed, TimeoutError) as error:
        saw["failed"] = str(error)
    for what, all_of_them in (("Send", sends), ("Recv", receives), ("Listen", listening)):
        for comm in all_of_them:
            plugin.close(what, comm)
    plugin.finalize()
    leave(saw | {"messages": run.messages, "bytes": run.bytes, "wrong": run.wrong, "most": run.most, "log": plugin.log})


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
