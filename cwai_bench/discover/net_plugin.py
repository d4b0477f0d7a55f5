"""What the net plugin ``libnccl-net-cwai.so`` in a running process says of its paths.

It answers on the abstract unix socket ``cwai-net-PID`` (cpp/nccl_plugin/status.hpp), which is scoped to the network
namespace: a job in a container with one of its own is asked from within it. What comes is text of another process:
bounded, and read strictly.
"""

from __future__ import annotations

import socket
import time

import msgspec

TIMEOUT = 3.0
ANSWER_LIMIT = 4 << 20
SCHEMA = 2


class Rail(msgspec.Struct):
    """``transport``: ``tcp`` or ``rdma``; then ``name`` is the device and its port, the ends meet at ``address``."""

    name: str
    address: str
    transport: str


class Path(msgspec.Struct):
    """``local``, ``remote``: addresses; their names are those of the interfaces, or over RDMA of the devices and ports.
    ``bytes``: delivered, or that came; ``lost``: taken back, or that came twice. ``cause``: of its last
    change, ``ago_ms`` before it was asked, with its ``error`` and errno, or 0; empty while nothing happened to it."""

    local: str
    remote: str
    local_name: str
    remote_name: str
    state: str
    cause: str
    error: str
    code: int
    ago_ms: int
    bytes: int
    lost: int
    stalls: int
    failures: int


class Comm(msgspec.Struct):
    """``transport`` in use: ``tcp``, ``rdma``, or ``either`` while the ends have not met. ``transfers`` and ``bytes``:
    that are complete. ``error``: why it failed, or empty."""

    direction: str
    peer: str
    transport: str
    transfers: int
    bytes: int
    outstanding: int
    error: str
    paths: list[Path]


class NetPlugin(msgspec.Struct):
    """``connections``: on each path. ``left_out``: comms of which nothing is told, since there are so many."""

    schema: int
    pid: int
    rails: list[Rail]
    connections: int
    resend: bool
    timeout_s: int
    comms: list[Comm]
    left_out: int


def encode(told: NetPlugin) -> bytes:
    return msgspec.json.encode(told)


def ask(pid: int) -> NetPlugin | None:
    """None where nobody answers, or what comes is no such answer."""
    deadline = time.monotonic() + TIMEOUT
    said = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(TIMEOUT)
            asking.connect(f"\0cwai-net-{pid}")
            while part := asking.recv(1 << 16):
                said += part
                if len(said) > ANSWER_LIMIT or time.monotonic() > deadline:
                    return None
        told = msgspec.json.decode(said, type=NetPlugin)
    except (OSError, msgspec.DecodeError, RecursionError):
        return None
    return told if told.schema == SCHEMA and told.pid == pid else None
