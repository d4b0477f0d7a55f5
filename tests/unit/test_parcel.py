"""Journals on their way between keepers: whole when they arrive, and what like nodes have alike travels once."""

from __future__ import annotations

import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwai_bench.launch import keeper, parcel, wire
from cwai_bench.launch.order import Peer
from cwai_bench.model import Facts, FactsRecord, NodeEnd, Reading


def journal_of(facts: Facts) -> list[bytes]:
    return [msgspec.json.encode(record) for record in (FactsRecord(facts), NodeEnd(facts.node, 1.0, 0))]


@given(st.dictionaries(st.text(min_size=1), st.text(max_size=300)))
def test_any_journal_arrives_as_it_was(texts: dict[str, str]) -> None:
    readings = {source: Reading(source, "ok", text, duration=0.1) for source, text in texts.items()}
    lines = journal_of(Facts("n", 1.0, True, False, readings))
    packed, kept = parcel.pack(lines)
    assert set(parcel.digests(packed)) == set(kept)
    assert parcel.unpack(packed, kept) == lines


def test_a_text_that_looks_like_a_digest_is_still_a_text() -> None:
    trap = parcel.MARK + parcel.digest("secret of another node")
    lines = journal_of(Facts("n", 1.0, True, False, {"etc/motd": Reading("etc/motd", "ok", trap)}))
    packed, kept = parcel.pack(lines)
    assert list(kept.values()) == [trap]
    assert parcel.unpack(packed, {**kept, parcel.digest("secret of another node"): "secret"}) == lines


def test_a_text_that_did_not_come_is_no_empty_text() -> None:
    lines = journal_of(Facts("n", 1.0, True, False, {"a": Reading("a", "ok", "x" * 100)}))
    with pytest.raises(wire.WireError):
        parcel.unpack(parcel.pack(lines)[0], {})


def test_a_like_node_costs_little(good_facts: Facts) -> None:
    """Two nodes that differ in their names, their load and their free memory: the bytes that the second one sends."""
    first, second = journal_of(good_facts), journal_of(other_than(good_facts))
    seen = parcel.pack(first)[1]
    packed, texts = parcel.pack(second)
    unseen = [text for name, text in texts.items() if name not in seen]
    assert len(unseen) == 1, "free memory; the others are short"
    messages = (
        keeper.Chunk([msgspec.Raw(line) for line in packed]),
        keeper.Texts(unseen),
        keeper.Delivered(Peer("k", "node2", ["10.0.0.2"], 4711), "n.jsonl", None),
    )
    sent = sum(len(zlib.compress(msgspec.json.encode(message), 6)) for message in messages)
    whole = sum(map(len, second))
    assert sent < 10_000, f"{sent} of {whole} bytes"
    assert parcel.unpack(packed, seen | {parcel.digest(t): t for t in unseen}) == second


def other_than(facts: Facts) -> Facts:
    readings = dict(facts.readings)
    memory = readings["proc/meminfo"].text.replace("MemFree:", "MemFree: 1")
    for source, text in (("proc/loadavg", "1.00 1.00 1.00 1/2 3\n"), ("proc/meminfo", memory)):
        readings[source] = msgspec.structs.replace(readings[source], text=text, duration=0.0123)
    return msgspec.structs.replace(facts, node="node2", readings=readings)
