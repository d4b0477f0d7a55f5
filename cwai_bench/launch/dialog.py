"""What is said over one ssh connection, between the collector and what it started at the other end.

::

    collector                       node                          gateway
    (ssh starts it)                 MARK, Ready                   MARK, Ready
    Ask | Relay                     reads its facts               asks its nodes, as a collector
                                    Facts of this node            Facts of one of them, when they are there
    Wanted, none or more            Texts                         Texts
    Taken                           Done                          the next one; Lost for one of whom nothing came; Done

Everything before MARK is noise of the login (a banner, a shell's start-up file). Closing its end is how the collector
says that it is over: the other end leaves nothing behind.
"""

from __future__ import annotations

import msgspec

from cwai_bench.launch.order import Order
from cwai_bench.model import Plan, ReasonCode
from cwai_bench.text import Text

MARK = b"\x1ecwai-bench answer\n"
NODE_TOTAL = 64 << 20
"""Bytes that one node may send, inflated: a whole node is about half a megabyte."""


class Ask(msgspec.Struct, tag="ask", frozen=True):
    """``node``: the name under which it was asked. ``seconds``: when the other end gives up by itself."""

    order: Order
    run_id: str
    node: str
    plan: Plan
    seconds: float


class Ways(msgspec.Struct, frozen=True):
    """How nodes are reached. ``options`` are ssh's own (``Port=2222``); ``command``: what starts cwai-bench there."""

    user: str = ""
    options: list[str] = []
    command: str = ""
    fanout: int = 64
    seconds: float = 120.0


class Relay(msgspec.Struct, tag="relay", frozen=True):
    """To a gateway: ask these nodes. ``ask.seconds`` is for all of them, ``ways.seconds`` for each."""

    ask: Ask
    nodes: list[str]
    ways: Ways


class Wanted(msgspec.Struct, tag="wanted"):
    texts: list[str]


class Taken(msgspec.Struct, tag="taken"):
    """All that was wanted of this node is here."""


class Ready(msgspec.Struct, tag="ready"):
    version: str


class Facts(msgspec.Struct, tag="facts"):
    """Records of facts, packed (see parcel.py), and the environment of the process that read them."""

    node: str
    lines: list[msgspec.Raw]
    environment: dict[str, str]


class Texts(msgspec.Struct, tag="texts"):
    """``more``: others follow."""

    texts: list[str]
    more: bool


class Lost(msgspec.Struct, tag="lost"):
    """Nothing comes of this node."""

    node: str
    reason_code: ReasonCode
    why: Text


class Done(msgspec.Struct, tag="done"):
    """That was all."""


to_node: msgspec.json.Decoder[Ask | Relay | Wanted | Taken] = msgspec.json.Decoder(Ask | Relay | Wanted | Taken)
from_node: msgspec.json.Decoder[Ready | Facts | Texts | Lost | Done] = msgspec.json.Decoder(
    Ready | Facts | Texts | Lost | Done
)
