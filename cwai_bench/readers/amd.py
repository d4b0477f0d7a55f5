"""What amd-smi and rocminfo say of AMD cards.

Formats: ROCm/amdsmi, docs/how-to/amdsmi-cli-tool.md and CHANGELOG.md. Since ROCm 6.4 some commands wrap their rows in
``{"gpu_data": [...]}``; before, and others still, print the list alone.
"""

from __future__ import annotations

import msgspec

from cwai_bench.readers import Unreadable
from cwai_bench.readers.json_answer import count, decoded

Row = dict[str, object]


def rows(text: str) -> dict[int, Row]:
    """One row for each card, by its number. Raises Unreadable for none at all, or for a card told of twice."""
    told = decoded(text)
    if isinstance(told, dict):
        told = told.get("gpu_data")
    if not isinstance(told, list) or not told:
        raise Unreadable("expected a list of cards")
    found: dict[int, Row] = {}
    for row in told:
        number = count(row.get("gpu")) if isinstance(row, dict) else None
        if number is None or number in found:
            raise Unreadable("expected one row for each card, with its number")
        found[number] = row
    return found


def addresses(text: str) -> dict[int, str]:
    """``amd-smi list --json``: the PCI address of each card."""
    found = {number: row.get("bdf") for number, row in rows(text).items()}
    if not all(isinstance(bdf, str) and bdf for bdf in found.values()):
        raise Unreadable("expected the bdf of each card")
    return {number: str(bdf).lower() for number, bdf in found.items()}


def versions(text: str) -> dict[str, str]:
    """``amd-smi version --json``: versions by name, without the name of the tool itself."""
    told = decoded(text)
    first = told[0] if isinstance(told, list) and told else told
    if not isinstance(first, dict):
        raise Unreadable("expected versions")
    found = {
        str(name).removesuffix("_version"): value
        for name, value in first.items()
        if str(name).endswith("_version") and isinstance(value, str) and value not in ("", "N/A")
    }
    if not found:
        raise Unreadable("expected the version of ROCm or of the library")
    return found


def firmware(text: str) -> dict[int, dict[str, str]]:
    """``amd-smi firmware --json``: for each card the versions of its parts; empty where it says N/A."""
    found: dict[int, dict[str, str]] = {}
    for number, row in rows(text).items():
        listed = row.get("fw_list")
        if listed == "N/A":
            listed = []
        if not isinstance(listed, list) or not all(isinstance(e, dict) and e.get("fw_id") for e in listed):
            raise Unreadable("expected fw_list")
        found[number] = {str(e["fw_id"]): str(e.get("fw_version")) for e in listed}
    return found


class Ecc(msgspec.Struct, frozen=True):
    """Errors of a card since its driver was loaded; None where it does not count."""

    correctable: int | None
    uncorrectable: int | None
    deferred: int | None


def ecc(text: str) -> dict[int, Ecc]:
    """``amd-smi metric --ecc --json``."""
    found = {}
    for number, row in rows(text).items():
        told = row.get("ecc")
        if told == "N/A":
            told = {}
        if not isinstance(told, dict):
            raise Unreadable("expected the ECC counts of each card")
        found[number] = Ecc(
            count(told.get("total_correctable_count")),
            count(told.get("total_uncorrectable_count")),
            count(told.get("total_deferred_count")),
        )
    return found


class BadPages(msgspec.Struct, frozen=True):
    """How many pages of a card's memory are out of use, are waiting to be, and cannot be; None where it is not told."""

    retired: int | None
    pending: int | None
    unreservable: int | None


_NO_PAGES = "No bad pages found."


def bad_pages(text: str) -> dict[int, BadPages]:
    """``amd-smi bad-pages --json``: a list of pages, one page alone, or words when there is none."""

    def pages(told: object) -> int | None:
        if isinstance(told, list):
            return len(told)
        if isinstance(told, dict):
            return 1
        if told == _NO_PAGES:
            return 0
        if told in ("N/A", None):
            return None
        raise Unreadable("expected bad pages")

    return {
        number: BadPages(pages(row.get("retired")), pages(row.get("pending")), pages(row.get("un_res")))
        for number, row in rows(text).items()
    }


def gpu_agents(text: str) -> int:
    """rocminfo: how many of the agents are GPUs. Raises Unreadable when it did not come to its end."""
    if "*** Done ***" not in text:
        raise Unreadable("rocminfo did not come to its end (*** Done ***)")
    return sum(line.split() == ["Device", "Type:", "GPU"] for line in text.splitlines())
