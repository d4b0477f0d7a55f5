"""Keepers meet only those who know the secret; strangers cost nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import zlib
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from cwai_bench.launch import wire

SECRET = "ab" * 32
decoder: msgspec.json.Decoder[list[int]] = msgspec.json.Decoder(list[int])


def with_server(client: Callable[[int], Awaitable[None]], identity: str = "k1") -> list[str]:
    """Run ``client`` against an echo server; return what became of each line on the server's side."""
    ends: list[str] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await wire.accept(reader, writer, SECRET, identity)
            while (message := await line.receive(decoder)) is not None:
                await line.send(message[::-1])
            ends.append("closed")
        except (wire.WireError, asyncio.TimeoutError) as e:
            ends.append(type(e).__name__)
        finally:
            writer.close()

    async def both() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        await client(server.sockets[0].getsockname()[1])
        for _ in range(100):
            if ends:
                break
            await asyncio.sleep(0.02)
        server.close()

    asyncio.run(both())
    return ends


def test_friends_exchange_messages() -> None:
    async def client(port: int) -> None:
        line = await wire.connect(["127.0.0.1"], port, SECRET, 2.0, "k1")
        for n in range(3):
            await line.send([n, n + 1])
            assert await line.receive(decoder) == [n + 1, n]
        line.close()

    assert with_server(client) == ["closed"]


def test_a_wrong_secret_is_refused_by_the_listener() -> None:
    async def client(port: int) -> None:
        with pytest.raises(wire.WireError):
            await wire.connect(["127.0.0.1"], port, "cd" * 32, 2.0, "k1")

    assert with_server(client) == ["WireError"]


def test_another_keeper_at_the_address_is_noticed() -> None:
    async def client(port: int) -> None:
        with pytest.raises(wire.WireError, match="does not know the secret"):
            await wire.connect(["127.0.0.1"], port, SECRET, 2.0, "k2")

    assert with_server(client, "k1") == ["closed"]


def test_one_who_stalls_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HANDSHAKE_SECONDS", 0.2)

    async def client(port: int) -> None:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.5)
        writer.close()

    assert with_server(client) == ["TimeoutError"]


def test_a_tampered_frame_ends_the_line() -> None:
    async def client(port: int) -> None:
        line = await wire.connect(["127.0.0.1"], port, SECRET, 2.0, "k1")
        line._send_key = b"x" * 32
        await line.send([1])
        assert await line.receive(decoder) is None
        line.close()

    assert with_server(client) == ["WireError"]


def test_a_replayed_frame_ends_the_line() -> None:
    async def client(port: int) -> None:
        line = await wire.connect(["127.0.0.1"], port, SECRET, 2.0, "k1")
        await line.send([1])
        assert await line.receive(decoder) == [1]
        line._frames_out = 0
        await line.send([1])
        assert await line.receive(decoder) is None
        line.close()

    assert with_server(client) == ["WireError"]


def test_a_huge_length_is_refused_unread() -> None:
    left, right = socket.socketpair()
    with contextlib.closing(left), contextlib.closing(right):
        left.sendall(b"\xff\xff\xff\xff")
        with pytest.raises(wire.WireError, match="frame of"):
            wire.receive_sync(right, decoder)


def test_a_frame_that_grows_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_FRAME", 1000)
    small = zlib.compress(b" " * 10_000)
    assert len(small) < 1000
    for payload in (small, small[:-4], b"not deflated"):
        with pytest.raises(wire.WireError):
            wire._inflated(payload)
    assert wire._inflated(zlib.compress(b" " * 1000)) == b" " * 1000
