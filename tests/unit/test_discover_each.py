"""One command for each of several devices: on this node, recorded, and as a check sees it."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from cwai_bench.checks import FactView, NotKnown
from cwai_bench.discover import read_node
from cwai_bench.discover.recorded import write
from cwai_bench.model import Facts
from cwai_bench.sources import Call, Command, Each, Source

NET = Each("echo", "{}", over="sys/class/net/*/mtu")
TOOL = Each("no-such-tool-here", "{}", over="sys/class/net/*/mtu")
NOBODY = Each("echo", "-n", "{}", over="sys/class/net/no-such-*")


def read(root: Path | None = None) -> Facts:
    return read_node("", root, [NET, TOOL, NOBODY], time.monotonic() + 30)


def test_devices_are_found_and_asked_one_by_one() -> None:
    facts = read()
    assert FactView(facts).each(*NET.argv)["lo"].text == "lo\n"
    assert facts.readings["$ echo lo"].exit_code == 0
    assert facts.readings[NOBODY.key].status == "missing"


def test_a_recorded_node_gives_the_same_answers(tmp_path: Path) -> None:
    facts = read()
    write(tmp_path / "node", facts)
    again = read(tmp_path / "node")
    assert set(again.readings) == set(facts.readings)
    for key, reading in facts.readings.items():
        here, there = (msgspec.structs.replace(r, duration=0.0, detail="") for r in (reading, again.readings[key]))
        assert here == there
    assert FactView(again).each(*NOBODY.argv) == {}
    with pytest.raises(NotKnown) as refused:
        FactView(again).each(*TOOL.argv)
    assert refused.value.reason_code == "missing_tool"


@pytest.mark.parametrize("name", ["-rf", "a b", "", "$(x)", "a/b", "x" * 80])
def test_a_hostile_name_is_no_device(name: str) -> None:
    each = Each("echo", "{}", over="sys/class/net/*")
    assert each.name_in_path(f"sys/class/net/{name}".replace("a/b", "a b")) == ""
    assert each.name_in_words(("echo", name)) == ""


def test_names_are_what_the_wildcard_holds() -> None:
    each = Each("hccn_tool", "-i", "{}", "-link", "-g", over="dev/davinci[0-9]*")
    assert each.name_in_path("dev/davinci12") == "12"
    assert each.command("12").argv == ("hccn_tool", "-i", "12", "-link", "-g")
    assert each.name_in_words(("hccn_tool", "-i", "12", "-link", "-g")) == "12"
    assert each.name_in_words(("hccn_tool", "-i", "12", "-ip", "-g")) == ""
    twice = Each("cmp", "{}", "x{}y", over="d*")
    assert twice.name_in_words(("cmp", "1", "x1y")) == "1"
    assert twice.name_in_words(("cmp", "1", "x2y")) == ""


@pytest.mark.parametrize(("argv", "over"), [(("echo", "x"), "d*"), (("echo", "{}"), "d")])
def test_what_is_no_family_is_refused(argv: tuple[str, ...], over: str) -> None:
    with pytest.raises(ValueError, match=r"\{\}|wildcard"):
        Each(*argv, over=over)


def test_a_program_that_hangs_does_not_use_up_the_time_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 30\n")
    hangs.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    many = [Command("hangs", f"{n:02}", timeout=0.3) for n in range(40)]
    started = time.monotonic()
    found = read_node("", None, [*many, Command("true", "zz")], started + 20).readings
    assert time.monotonic() - started < 6  # forty of them, four at a time, would take more
    assert found["$ true zz"].status == "ok"
    assert {found[c.key].status for c in many} == {"timeout"}
    assert "not asked: hangs" in found["$ hangs 39"].detail


def test_one_device_that_hangs_does_not_silence_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picky = tmp_path / "picky"
    picky.write_text("#!/bin/sh\n[ $1 = lo ] && exec sleep 30\necho well\n")
    picky.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    asked = [Each("picky", "{}", what, over="proc/sys/net/ipv4/conf/*", timeout=0.3) for what in "abcdefgh"]
    found = read_node("", None, asked, time.monotonic() + 30).readings
    names = {each.key: found[each.key].text.splitlines() for each in asked}
    said = {key: found[key] for keys in names.values() for key in keys}
    assert len(said) >= 8 * 3  # all, default, lo
    assert {key.split(" ")[2] for key, reading in said.items() if reading.status == "timeout"} == {"lo"}
    assert not any("not asked" in reading.detail for reading in said.values())


def test_a_command_that_says_the_same_is_run_only_where_the_call_had_no_answer() -> None:
    instead = [Command("echo", name, unless=f"call:{name}") for name in ("host", "no-such-call")]
    alone = Command("echo", "alone", unless="call:limits")
    asked: list[Source] = [Call("host"), Call("no-such-call"), *instead, alone]
    found = read_node("", None, asked, time.monotonic() + 30).readings
    assert (found["$ echo host"].status, found["$ echo host"].detail) == (
        "missing",
        "not asked: call:host has answered",
    )
    assert found["$ echo no-such-call"].text == "no-such-call\n"
    assert found["$ echo alone"].text == "alone\n", "the call was not among the sources"
