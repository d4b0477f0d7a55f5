"""What the fuzzer starts from and what it once found, tried without it; and what it cannot try: very long lines."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cwai_bench.discover.tree import TEXT_LIMIT, Tree, bounded
from cwai_bench.model import Status
from tests.fuzz.targets import ALONE, FOUND, TARGETS, read_by, said, timed, well

NESTED = {
    "lists": b"[" * 60_000,
    "objects": b'{"x":' * 60_000,
    "behind a field": b'{"type":"facts","cards":' + b"[" * 60_000,
    "in a table": b"x = " + b"[" * 60_000,
    "digits": b"9" * 60_000,
    "no UTF-8": b"\xff\xfe\x00\x8e",
    "Windows": b"\xef\xbb\xbfone: 1\r\ntwo: 2\r\n",
}
WHOLE = ["good", "l40s", "a10_vm", "plain"]


@pytest.mark.parametrize("name", TARGETS)
def test_what_the_fuzzer_starts_from_and_what_is_nested_deeply(name: str) -> None:
    for data in (*TARGETS[name].seeds(), b"", *NESTED.values()):
        timed(TARGETS[name], data)


FOUND_SO_FAR = sorted(path for path in FOUND.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", FOUND_SO_FAR, ids=lambda p: f"{p.parent.name}-{p.name[:14]}")
def test_what_the_fuzzer_once_found(path: Path) -> None:
    timed(TARGETS[path.parent.name], path.read_bytes())


@pytest.mark.parametrize("node", WHOLE)
@pytest.mark.parametrize(
    "text", ["", " \n\n", "命令未找到\n", "\x00\x01\x7f" * 50, "[" * 5000, '{"cards":' + "[" * 5000]
)
def test_no_source_of_a_node_is_a_bug_whatever_it_says(text: str, node: str) -> None:
    started = time.monotonic()
    for key in read_by(node):
        said(node, key, text)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("node", WHOLE)
def test_a_list_of_files_that_names_other_readings_is_no_bug(node: str) -> None:
    """Other commands, other files, and paths cut short: none is one of the files that the list stands for."""
    others = [key for key, reading in well(node).readings.items() if reading.status == "ok"][::7]
    for key in read_by(node):
        if not key.startswith(("$ ", "call:")):
            for other in (*others, key.rpartition("/")[2], ""):
                said(node, key, other + "\n")


@pytest.mark.parametrize("node", WHOLE)
def test_windows_line_ends_blame_nothing(node: str) -> None:
    """A text with the line ends of another system is read, or not known; it is never taken for a fault."""
    import msgspec

    from cwai_bench.judge import check_facts

    facts = well(node)
    for key, items in read_by(node).items():
        if key.startswith("call:"):
            continue
        reading = msgspec.structs.replace(facts.readings[key], text=facts.readings[key].text.replace("\n", "\r\n"))
        changed = msgspec.structs.replace(facts, readings=facts.readings | {key: reading})
        wrong = [v.check for v in check_facts([changed], items) if v.status in (Status.FAIL, Status.WARN)]
        assert wrong == [], key


@pytest.mark.parametrize("head", ["", "INFO: task ", "GPU 0: ", '{"a": "'])
def test_a_line_of_100_megabytes_is_cut_to_one_and_judged_in_time(head: str, tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(head.encode() + b"x" * (100 << 20))
    started = time.monotonic()
    from_file = Tree(tmp_path).read_path("long")
    assert (len(from_file.text), from_file.truncated, from_file.status) == (TEXT_LIMIT, True, "ok")
    assert bounded("$ x", head.encode() + b"x" * (TEXT_LIMIT + 1)).text == from_file.text
    for name in ("ascend", "nvidia", "nic", "host", "amd", "json"):
        timed(TARGETS[name], from_file.text.encode())
    assert time.monotonic() - started < 20


def test_items_that_read_one_source_alone_are_known() -> None:
    assert len([items for items in ALONE.values() if items]) >= 20
