"""What the items say of themselves: in both languages, whole, and as the documentation has it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cwai_bench import config
from cwai_bench.checks import CHECKS, ConfigurableCheck, ConsistencyCheck, NodeCheck, criteria_items, sources_for
from cwai_bench.discover import CALLS
from cwai_bench.sources import Call

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_page_of_checks_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/generate_docs.py", "--check"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}: run python tools/generate_docs.py"


def test_the_page_names_every_item() -> None:
    page = (ROOT / "docs/checks.md").read_text(encoding="utf-8")
    assert [id for id in CHECKS if f"`{id}`" not in page] == []


def test_the_example_of_the_page_loads(good_facts: object) -> None:
    page = (ROOT / "docs/checks.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.S)
    found = config.parse_criteria(example, "docs", criteria_items() | {"tcp.bandwidth": "", "tcp.latency": ""})
    assert set(found.items) == {"memory.total", "kernel.version", "nic.speed", "tcp.bandwidth", "tcp.latency"}


@pytest.mark.parametrize("check", CHECKS.values(), ids=lambda c: c.info.id)
def test_an_item_explains_itself_in_both_languages(check: NodeCheck | ConsistencyCheck | ConfigurableCheck) -> None:
    info = check.info
    for text in (info.title, info.method, info.criterion, info.suggestion):
        assert text.en.strip()
        assert text.zh.strip()
        assert not re.search(r"\{\w*(:[^}]*)?\}", text.en + text.zh), "a field that was not filled"
    words = info.title.zh + info.suggestion.zh
    assert re.search(r"[\u4e00-\u9fff]", words), "no Chinese"
    assert not re.search(r"[\u4e00-\u9fff]", info.title.en + info.method.en + info.criterion.en + info.suggestion.en)
    assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", info.id)
    assert check.reads


def test_there_are_as_many_items_as_were_promised() -> None:
    kinds = [type(c) for c in CHECKS.values()]
    assert kinds.count(NodeCheck) >= 30
    assert kinds.count(ConsistencyCheck) >= 10
    assert kinds.count(ConfigurableCheck) >= 8


def test_every_call_that_is_asked_can_be_answered() -> None:
    asked = {s.name for s in sources_for(CHECKS) if isinstance(s, Call)}
    assert asked <= set(CALLS)
    assert set(CALLS) <= asked, "a call that nobody asks"


def test_what_an_item_reads_is_all_that_it_needs() -> None:
    """An item judged with only its own sources gives what it gives with all: nothing is read behind its back."""
    import time

    from cwai_bench.discover import read_node
    from cwai_bench.judge import check_facts

    root = ROOT / "tests/fixtures/nodes/good"
    every = read_node("", root, sources_for(CHECKS), time.monotonic() + 30)
    for id in CHECKS:
        own = read_node("", root, sources_for([id]), time.monotonic() + 30)
        assert check_facts([own], [id]) == check_facts([every], [id]), id
