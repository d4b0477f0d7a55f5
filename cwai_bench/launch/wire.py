"""Frames between processes: length-bounded JSON; between nodes also authenticated.

::

    frame   := length (4 bytes, big endian) payload
    Line    := frames whose payload is deflated
    Sealed  := length payload tag, tag = HMAC-SHA256(key, direction | sequence | payload), payload is deflated

Keepers prove to each other that they know the secret of the run before anything else is read. A stranger gets
a nonce, five seconds and 64 bytes; then the line is closed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import socket
import struct
import zlib
from typing import Any, TypeVar

import msgspec

MAX_FRAME = 64 << 20
MAX_TOTAL = 1 << 30
HANDSHAKE_SECONDS = 5.0
MAGIC = b"CWAIB2\0\0"
_LENGTH = struct.Struct("!I")
_TAG = 32
_NONCE = 32

T = TypeVar("T")


class WireError(Exception):
    """The other end broke the protocol, or is a stranger."""


def frame(payload: bytes) -> bytes:
    return _LENGTH.pack(len(payload)) + payload


def decoded(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """The message in ``data``. Raises WireError for what is none: malformed, of another shape, not UTF-8, too deep."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise WireError(f"not a message: {e}") from e


def send_sync(sock: socket.socket, message: Any) -> None:
    sock.sendall(frame(msgspec.json.encode(message)))


def receive_sync(sock: socket.socket, decoder: msgspec.json.Decoder[T]) -> T | None:
    """One message from a blocking socket, or None at the end of the stream. The socket's own timeout applies."""
    head = _exactly(sock, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME:
        raise WireError(f"frame of {length} bytes")
    body = _exactly(sock, length)
    return None if body is None else decoded(decoder, body)


def _exactly(sock: socket.socket, count: int) -> bytes | None:
    parts: list[bytes] = []
    while count:
        part = sock.recv(min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


async def receive(reader: asyncio.StreamReader) -> bytes | None:
    """One frame, or None at the end of the stream."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MAX_FRAME:
            raise WireError(f"frame of {length} bytes")
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


class Line:
    """Messages over a stream that is safe by itself, as ssh is: deflated, each in a frame. ``limit``: bytes in all,
    once inflated."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int = MAX_TOTAL) -> None:
        self._reader, self._writer, self._limit = reader, writer, limit
        self._bytes = 0

    async def send(self, message: Any) -> None:
        plain = msgspec.json.encode(message)
        if len(plain) > MAX_FRAME:
            raise WireError(f"a message of {len(plain)} bytes does not fit in a frame")
        payload = zlib.compress(plain, 6)
        self._writer.write(frame(payload) + self._tag(payload))
        await self._writer.drain()

    async def receive(self, decoder: msgspec.json.Decoder[T]) -> T | None:
        """The next message, or None at the end. Raises WireError."""
        payload = await receive(self._reader)
        if payload is None or not await self._genuine(payload):
            return None
        plain = _inflated(payload)
        self._bytes += len(plain)
        if self._bytes > self._limit:
            raise WireError(f"more than {self._limit >> 20} MiB on one line")
        return decoded(decoder, plain)

    def _tag(self, _payload: bytes) -> bytes:
        return b""

    async def _genuine(self, _payload: bytes) -> bool:
        return True

    def close(self) -> None:
        self._writer.close()

    async def finish(self) -> None:
        """Close when all that was sent has left this process, which may be about to end."""
        self._writer.close()
        await self._writer.wait_closed()


class Sealed(Line):
    """An authenticated line between two keepers. Each direction has its own key and counts its frames."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, send_key: bytes, receive_key: bytes
    ) -> None:
        super().__init__(reader, writer)
        self._send_key, self._receive_key = send_key, receive_key
        self._frames_out = self._frames_in = 0

    def _tag(self, payload: bytes) -> bytes:
        tag = _seal(self._send_key, self._frames_out, payload)
        self._frames_out += 1
        return tag

    async def _genuine(self, payload: bytes) -> bool:
        """False when the line ended before the seal. Raises WireError for a wrong one."""
        try:
            tag = await self._reader.readexactly(_TAG)
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        if not hmac.compare_digest(tag, _seal(self._receive_key, self._frames_in, payload)):
            raise WireError("a frame whose seal is wrong")
        self._frames_in += 1
        return True


def _inflated(payload: bytes) -> bytes:
    inflate = zlib.decompressobj()
    try:
        plain = inflate.decompress(payload, MAX_FRAME + 1)
    except zlib.error as e:
        raise WireError(f"a frame that is not deflated: {e}") from e
    if len(plain) > MAX_FRAME or not inflate.eof:
        raise WireError("a frame that is larger than it may be, or cut short")
    return plain


def _seal(key: bytes, sequence: int, payload: bytes) -> bytes:
    return hmac.new(key, struct.pack("!Q", sequence) + payload, hashlib.sha256).digest()


def _derive(secret: str, label: bytes, ours: bytes, theirs: bytes) -> bytes:
    return hmac.new(bytes.fromhex(secret), label + ours + theirs, hashlib.sha256).digest()


async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, secret: str, identity: str) -> Sealed:
    """The listening end, which proves to be ``identity``.

    Raises WireError for one who does not know the secret, asyncio.TimeoutError for one who stalls.
    """
    nonce = os.urandom(_NONCE)

    async def meet() -> Sealed:
        writer.write(MAGIC + nonce)
        await writer.drain()
        try:
            answer = await reader.readexactly(_NONCE + _TAG)
        except (asyncio.IncompleteReadError, ConnectionError) as e:
            raise WireError("hung up during the handshake") from e
        other, proof = answer[:_NONCE], answer[_NONCE:]
        if not hmac.compare_digest(proof, _derive(secret, b"connect", nonce, other)):
            raise WireError("does not know the secret of the run")
        writer.write(_derive(secret, b"accept" + identity.encode(), nonce, other))
        await writer.drain()
        return Sealed(
            reader,
            writer,
            _derive(secret, b"to-connector", nonce, other),
            _derive(secret, b"to-acceptor", nonce, other),
        )

    return await asyncio.wait_for(meet(), HANDSHAKE_SECONDS)


async def connect(addresses: list[str], port: int, secret: str, patience: float, identity: str) -> Sealed:
    """The calling end: the first address where ``identity`` answers (another node may have the same private address).
    Raises OSError, WireError or TimeoutError of the last one tried."""
    trouble: Exception = WireError("no address to try")
    for address in addresses:
        try:
            return await asyncio.wait_for(_connect(address, port, secret, identity), patience)
        except (OSError, WireError, asyncio.TimeoutError) as e:
            trouble = e
    raise trouble


async def _connect(address: str, port: int, secret: str, identity: str) -> Sealed:
    reader, writer = await asyncio.open_connection(address, port)
    try:
        hello = await reader.readexactly(len(MAGIC) + _NONCE)
        if not hello.startswith(MAGIC):
            raise WireError("the other end is not cwai-bench")
        theirs, ours = hello[len(MAGIC) :], os.urandom(_NONCE)
        writer.write(ours + _derive(secret, b"connect", theirs, ours))
        await writer.drain()
        proof = await reader.readexactly(_TAG)
        if not hmac.compare_digest(proof, _derive(secret, b"accept" + identity.encode(), theirs, ours)):
            raise WireError("the other end does not know the secret of the run")
    except asyncio.IncompleteReadError as e:
        writer.close()
        raise WireError("hung up during the handshake") from e
    except BaseException:
        writer.close()
        raise
    return Sealed(
        reader, writer, _derive(secret, b"to-acceptor", theirs, ours), _derive(secret, b"to-connector", theirs, ours)
    )
