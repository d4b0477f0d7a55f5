"""Criteria and options: what a person may write, and what they are told when it is wrong."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cwai_bench import config
from cwai_bench.checks import CHECKS, ConfigurableCheck, criteria_items
from cwai_bench.errors import UsageError
from cwai_bench.judge import check_facts
from cwai_bench.model import Facts, Status, Verdict
from cwai_bench.sources import Call

if TYPE_CHECKING:
    from tests.unit.conftest import Planted

KNOWN = criteria_items() | {"tcp.bandwidth": "", "tcp.latency": ""}
CONFIGURABLE = [c.info.id for c in CHECKS.values() if isinstance(c, ConfigurableCheck) and c.info.scope == "host"]


def criteria(text: str) -> config.Criteria:
    return config.parse_criteria(f"[criteria]\n{text}\n", "my.toml", KNOWN)


def judged(facts: Facts, item: str, demand: str) -> Verdict:
    (verdict,) = check_facts([facts], [item], criteria=criteria(f"{item} = {demand}"))
    return verdict


@pytest.mark.parametrize(
    ("written", "value", "unit"),
    [
        (64, 64, "1"),
        ("64", 64, "1"),
        ("1 TiB", 2**40, "B"),
        ("1.5GiB", 1.5 * 2**30, "B"),
        ("100 GB", 100e9, "B"),
        ("9 Gb/s", 9e9, "bit/s"),
        ("400Gbit/s", 400e9, "bit/s"),
        ("1 GB/s", 8e9, "bit/s"),
        ("1 MiB/s", 2**20 * 8, "bit/s"),
        ("2 us", 2e-6, "s"),
        ("2 µs", 2e-6, "s"),
        ("15 min", 900, "s"),
        ("5 %", 0.05, "1"),
        ("-3 ms", -0.003, "s"),
        ("unlimited", math.inf, ""),
    ],
)
def test_quantities(written: object, value: float, unit: str) -> None:
    found = config.quantity(written)
    assert found is not None
    assert found.value == pytest.approx(value)
    assert found.unit == unit


@pytest.mark.parametrize("written", ["", "fast", "9 Gbps!", "1 tib", True, None, [], "1e", float("nan"), "9 9"])
def test_no_quantities(written: object) -> None:
    assert config.quantity(written) is None


# On the item's home: what holds, and what does not.
DEMANDS: dict[str, tuple[str, str]] = {
    "memory.total": ('{ min = "1000 GiB" }', '{ min = "1 TiB" }'),
    "swap.total": ("{ max = '0 B' }", "{ min = '1 GiB' }"),
    "huge_pages.total": ("{ equals = 0 }", "{ min = 1024 }"),
    "cpu.count": ("{ equals = 128 }", "{ one_of = [64, 96] }"),
    "cpu.model": ("{ pattern = 'Intel.*8462Y\\+' }", "{ pattern = 'AMD.*' }"),
    "accelerator.count": ("{ equals = 8 }", "{ equals = 16 }"),
    "rdma.count": ("{ min = 8 }", "{ min = 12 }"),
    "disk.free": ("{ min = '5 TB', where.name = '/data' }", "{ min = '5 TB' }"),
    "nic.speed": ("{ min = '400 Gb/s', where.name = 'ib*' }", "{ min = '100 Gb/s' }"),
    "nic.mtu": ("{ min = 4092 }", "{ equals = 9000 }"),
    "limits.nofile": ("{ min = 65536 }", "{ equals = 'unlimited' }"),
    "limits.memlock": ("{ equals = 'unlimited' }", "{ max = '1 GiB' }"),
    "kernel.version": ("{ pattern = '5\\.15\\..*' }", "{ one_of = ['6.8.0-40-generic'] }"),
    "os.name": ("{ equals = 'Ubuntu 22.04.5 LTS' }", "{ equals = 'Ubuntu 24.04' }"),
    "clock.offset": ("{ max = '1 ms' }", "{ max = '10 us' }"),
}
for family in Path(__file__).parent.glob("test_check_*.py"):
    DEMANDS |= getattr(importlib.import_module(family.stem), "DEMANDS", {})


@pytest.mark.parametrize("item", CONFIGURABLE)
def test_each_item_is_judged_by_the_criterion(item: str, at_home: Callable[[str], Facts]) -> None:
    good, bad = DEMANDS[item]
    passing, failing = judged(at_home(item), item, good), judged(at_home(item), item, bad)
    assert passing.status is Status.PASS, passing
    assert failing.status is Status.FAIL, failing
    for verdict in (passing, failing):
        assert verdict.observed
        assert verdict.evidence
        assert verdict.expected is not None
        assert verdict.expected.en != verdict.expected.zh


@pytest.mark.parametrize("item", CONFIGURABLE)
def test_without_a_criterion_an_item_is_skipped(item: str, good_facts: Facts) -> None:
    (verdict,) = check_facts([good_facts], [item])
    assert (verdict.status, verdict.reason_code) == (Status.SKIP, "no_criterion")


def test_only_what_fails_is_named(good_facts: Facts) -> None:
    verdict = judged(good_facts, "nic.mtu", "{ equals = 9000 }")
    assert "ibp26s0 4092" in verdict.observed
    assert "ens1f0np0" not in verdict.observed


def test_a_criterion_about_nothing_is_unknown(good_facts: Facts) -> None:
    verdict = judged(good_facts, "nic.speed", "{ min = '1 Gb/s', where.name = 'wlan*' }")
    assert (verdict.status, verdict.reason_code) == (Status.UNKNOWN, "absent")
    assert verdict.detail is not None
    assert verdict.detail.en.startswith("where.name = 'wlan*' fits none of: ens1f0np0, ens1f1np1, ibp106s0")
    assert verdict.detail.en.endswith(" …")
    assert "不匹配以下任何一项" in verdict.detail.zh
    near = judged(good_facts, "nic.speed", "{ min = '1 Gb/s', where.name = 'ens1f0' }").detail
    assert near is not None
    assert near.en.endswith("did you mean 'ens1f0np0'?")


def test_what_cannot_be_read_is_unknown(planted: Planted) -> None:
    facts = planted.refuse(Call("cpus"), "timeout", "no answer in 3 s").facts()
    assert judged(facts, "cpu.count", "{ min = 1 }").reason_code == "timeout"


def test_tolerance(good_facts: Facts) -> None:
    assert judged(good_facts, "memory.total", "{ equals = '1 TiB', tolerance = '2 %' }").status is Status.PASS
    assert judged(good_facts, "memory.total", "{ equals = '1 TiB', tolerance = 0.01 }").status is Status.FAIL


def test_all_comparisons_must_hold(good_facts: Facts) -> None:
    assert judged(good_facts, "cpu.count", "{ min = 64, max = 128 }").status is Status.PASS
    assert judged(good_facts, "cpu.count", "{ min = 64, max = 127 }").status is Status.FAIL


def test_the_ways_to_write_an_item_are_one() -> None:
    written = ['memory.total.min = "1 TiB"', '"memory.total".min = "1 TiB"', '"memory.total" = { min = "1 TiB" }']
    found = [criteria(text).items for text in written]
    found.append(config.parse_criteria('[criteria.memory.total]\nmin = "1 TiB"\n', "my.toml", KNOWN).items)
    assert all(f == found[0] for f in found)
    assert found[0]["memory.total"].min == config.Quantity(2**40, "B", "1 TiB")


WRONG: list[tuple[str, str, str]] = [
    (
        "memory.totl.min = '1 TiB'",
        "my.toml:2: criteria.memory.totl: there is no such configurable item",
        "did you mean memory.total?",
    ),
    ("cpu.count = 3", "my.toml:2: criteria.cpu.count: expected a table such as { min = … }, found 3", ""),
    ("cpu.count = {}", "my.toml:2: criteria.cpu.count: nothing is demanded", ""),
    (
        "\ncpu.count.minimum = 3",
        "my.toml:3: criteria.cpu.count.minimum: there is no such comparison",
        "did you mean min?",
    ),
    ("cpu.count.min = 'lots'", "my.toml:2: criteria.cpu.count.min: 'lots' is no quantity", ""),
    ("cpu.count.min = '3 GiB'", "my.toml:2: criteria.cpu.count: this item is in 1; B cannot be compared with it", ""),
    ("memory.total.min = 1024", "my.toml:2: criteria.memory.total: this item is in B; 1 cannot be compared", ""),
    ("kernel.version.pattern = '('", "my.toml:2: criteria.kernel.version.pattern: '(' is no regular expression", ""),
    ("kernel.version.pattern = 5", "my.toml:2: criteria.kernel.version.pattern: 5 is no regular expression", ""),
    ("cpu.count.one_of = []", "my.toml:2: criteria.cpu.count.one_of: expected a list", ""),
    ("cpu.count.one_of = 3", "my.toml:2: criteria.cpu.count.one_of: expected a list", ""),
    ("cpu.count = { min = 3, tolerance = 0.1 }", "criteria.cpu.count.tolerance: it needs equals or one_of", ""),
    ("cpu.count = { equals = 3, tolerance = 7 }", "criteria.cpu.count.tolerance: it is a share", ""),
    ("cpu.count = { min = 9, max = 3 }", "criteria.cpu.count: min is above max", ""),
    ("cpu.count.equals = [1]", "criteria.cpu.count.equals: [1] can be compared with nothing", ""),
    ("nic.mtu = { min = 3, where = 'eth0' }", "criteria.nic.mtu.where: expected a table of plain values", ""),
    ("nic.mtu.where.name = 'eth0'", "criteria.nic.mtu: nothing is demanded", ""),
    ("cpu.count.min = 'x", "my.toml is not valid TOML", ""),
]


@pytest.mark.parametrize(("text", "says", "hint"), WRONG, ids=[w[0][:40] for w in WRONG])
def test_mistakes_name_file_line_key_and_reason(text: str, says: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        criteria(text)
    assert says in refused.value.message.en
    assert refused.value.message.zh != refused.value.message.en
    if hint:
        assert refused.value.next_step is not None
        assert refused.value.next_step.en == hint


def test_invalid_toml_says_where() -> None:
    with pytest.raises(UsageError, match="line 3"):
        criteria("cpu.count.min = 1\ncpu.count.max = = 2")


def test_unknown_tables_are_refused() -> None:
    with pytest.raises(UsageError, match="no such table") as refused:
        config.parse_criteria("[criterion]\ncpu.count.min = 1\n", "my.toml", KNOWN)
    assert refused.value.next_step is not None
    assert refused.value.next_step.en == "did you mean criteria?"
    with pytest.raises(UsageError, match="has no \\[criteria\\] and no \\[script\\] table"):
        config.parse_criteria("[options]\n", "my.toml", KNOWN)


def test_nothing_in_a_file_is_executed(tmp_path: Path, good_facts: Facts) -> None:
    mark = tmp_path / "mark"
    evil = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    text = f'[criteria]\nkernel.version.equals = "{evil}"\n'
    (verdict,) = check_facts([good_facts], ["kernel.version"], criteria=config.parse_criteria(text, "e.toml", KNOWN))
    assert verdict.status is Status.FAIL
    assert not mark.exists()


# ------------------------------------------------------------------------------------------------------------- files


def _unreadable(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: None, "cannot read .*No such file"),
        (_unreadable, "cannot read .*Is a directory"),
        (lambda p: p.write_bytes(b"[criteria]\n# \xff\n"), "is not UTF-8"),
        (lambda p: p.write_bytes(b"#" * (2 << 20)), "larger than 1 MiB"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, make: Callable[[Path], object], says: str) -> None:
    path = tmp_path / "c.toml"
    make(path)
    with pytest.raises(UsageError, match=says) as refused:
        config.load_criteria(path, KNOWN)
    assert str(path) in refused.value.message.en
    assert refused.value.next_step is not None


def test_load(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[criteria]\ntcp.latency.max = "60 us"\n')
    found = config.load_criteria(path, KNOWN).get("tcp.latency")
    assert found is not None
    assert found.max is not None
    assert found.max.value == pytest.approx(60e-6)
    assert found.max.unit == "s"


# ------------------------------------------------------------------------------------------------------------ options

OPTIONS: dict[str, type] = {"lang": str, "streams": int, "duration": float, "spin": bool}


def test_options() -> None:
    text = '[options]\nlang = "zh"\nstreams = 4\nduration = 2\nspin = true\n'
    assert config.parse_options(text, "o.toml", OPTIONS) == {"lang": "zh", "streams": 4, "duration": 2.0, "spin": True}
    assert config.parse_options("[criteria]\n", "o.toml", OPTIONS) == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[options]\nlanguage = 'zh'\n", "o.toml:2: options.language: there is no such option"),
        ("[options]\nstreams = '4'\n", "o.toml:2: options.streams: expected a whole number, found '4'"),
        ("[options]\nstreams = true\n", "options.streams: expected a whole number, found True"),
        ("[options]\nspin = 1\n", "options.spin: expected true or false, found 1"),
        ("options = 3\n", "o.toml:1: options: must be a table"),
    ],
)
def test_wrong_options(text: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        config.parse_options(text, "o.toml", OPTIONS)
    assert says in refused.value.message.en


def paths(text: str) -> config.Criteria:
    return config.parse_criteria(f"[paths]\n{text}\n", "my.toml", KNOWN)


def test_which_share_of_what_is_expected_a_path_must_reach() -> None:
    assert criteria('memory.total.min = "1 TiB"').paths == (0.90, 0.95)
    assert paths('warn_below = "97 %"').paths == (0.90, 0.97)
    assert paths("fail_below = 0.5\nwarn_below = 0.5").paths == (0.5, 0.5)
    assert config.has_criteria("[paths]\nfail_below = 0.8\n", "my.toml")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("fail_belw = 0.9", "my.toml:2: paths.fail_belw: there is no such threshold"),
        ("fail_below = 90", 'it is a share such as "95 %" or 0.95'),
        ('fail_below = "360 Gb/s"', 'it is a share such as "95 %" or 0.95'),
        ("fail_below = true", 'it is a share such as "95 %" or 0.95'),
        ("fail_below = 0.96", "fail_below is above warn_below"),
    ],
)
def test_a_wrong_share_is_refused_by_its_line(text: str, complaint: str) -> None:
    with pytest.raises(UsageError) as refused:
        paths(text)
    assert complaint in refused.value.message.en


def test_paths_is_a_table() -> None:
    with pytest.raises(UsageError, match="paths: must be a table"):
        config.parse_criteria("paths = 0.9\n", "my.toml", KNOWN)
