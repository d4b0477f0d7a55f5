"""A journal on its way from one keeper to another: what like nodes read alike travels once.

Most of a journal is the text of what was read, and in a cluster most of that is the same everywhere. So the lines go
first, with a digest in the place of each long text; the other end says which texts it has not seen from anybody; those
follow. A thousand like nodes cost little more than one.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping

import msgspec

from cwai_bench.launch.wire import WireError, decoded
from cwai_bench.model import FactsRecord, Reading

LONG = 64
"""Characters from which on a text is worth a digest."""
MARK = "\x1ftext:"
_FACTS = b'{"type":"facts"'
_facts = msgspec.json.Decoder(FactsRecord)


def digest(text: str) -> str:
    """96 bits of SHA-256: the ends trust each other, so what counts is that no two texts meet by chance."""
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:12]).decode()


def pack(lines: Iterable[bytes]) -> tuple[list[bytes], dict[str, str]]:
    """``lines`` of a journal with digests for long texts, and the texts by digest."""
    texts: dict[str, str] = {}

    def shortened(reading: Reading) -> Reading:
        # A text that looks like one of our marks is marked as well, so that no text is ever taken for a digest.
        if len(reading.text) < LONG and not reading.text.startswith(MARK):
            return reading
        name = digest(reading.text)
        texts[name] = reading.text
        return msgspec.structs.replace(reading, text=MARK + name)

    return [_with_readings(line, shortened) for line in lines], texts


def digests(lines: Iterable[bytes]) -> list[str]:
    """The digests that stand in packed ``lines``, each once. Raises WireError for a line that is no record."""
    return list(
        dict.fromkeys(
            reading.text.removeprefix(MARK)
            for line in lines
            if line.startswith(_FACTS)
            for reading in decoded(_facts, line).facts.readings.values()
            if reading.text.startswith(MARK)
        )
    )


def unpack(lines: Iterable[bytes], texts: Mapping[str, str]) -> list[bytes]:
    """The journal's own lines again. Raises WireError when a text is missing, or a line is no record."""

    def whole(reading: Reading) -> Reading:
        if not reading.text.startswith(MARK):
            return reading
        text = texts.get(reading.text.removeprefix(MARK))
        if text is None:
            raise WireError("a text of the journal did not come")
        return msgspec.structs.replace(reading, text=text)

    return [_with_readings(line, whole) for line in lines]


def _with_readings(line: bytes, change: Callable[[Reading], Reading]) -> bytes:
    if not line.startswith(_FACTS):
        return line
    facts = decoded(_facts, line).facts
    readings = {source: change(reading) for source, reading in facts.readings.items()}
    return msgspec.json.encode(FactsRecord(msgspec.structs.replace(facts, readings=readings)))
