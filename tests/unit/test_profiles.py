"""Criteria for kinds of nodes that come with the program."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cwai_bench import config
from cwai_bench.checks import CHECKS, criteria_items
from cwai_bench.cli.main import entry
from cwai_bench.errors import UsageError
from cwai_bench.judge import check_facts
from cwai_bench.model import Facts, Status
from cwai_bench.probes import PROBES

if TYPE_CHECKING:
    from tests.unit.conftest import Planted

# The node kinds of the product, and two more.
KINDS = {"8xA800", "8xH800", "8xA100", "8xL40S", "8x910B", "8xH100", "8xH200"}
KINDS |= {f"{n}x{card}-vm" for n in (1, 2, 4) for card in ("A10", "A100")}


def judged(facts: Facts, text: str) -> dict[str, Status]:
    criteria = config.parse_criteria(text, "my.toml", criteria_items())
    return {v.check: v.status for v in check_facts([facts], criteria.items, criteria=criteria)}


def test_every_kind_of_node_has_a_profile_that_can_be_judged() -> None:
    assert set(config.profiles()) == KINDS
    for name in KINDS:
        criteria = config.parse_criteria(f'profile = "{name}"\n', "x", criteria_items())
        assert "accelerator.count" in criteria.items
        assert set(criteria.items) <= set(CHECKS)


@pytest.mark.parametrize(("scope_of", "profile"), [("nvidia.count", "8xH100"), ("ascend.count", "8x910B")])
def test_a_node_of_the_kind_passes(scope_of: str, profile: str, at_home: Callable[[str], Facts]) -> None:
    found = judged(at_home(scope_of), f'profile = "{profile}"')
    assert set(found.values()) == {Status.PASS}, found


@pytest.mark.parametrize("profile", sorted(KINDS - {"8xH100"}))
def test_a_node_of_another_kind_does_not(profile: str, good_facts: Facts) -> None:
    """8 H100 are neither fewer, nor more, nor other cards; where only less is demanded they pass what they exceed."""
    found = judged(good_facts, f'profile = "{profile}"')
    demanded = config.parse_criteria(f'profile = "{profile}"', "x").items
    if profile in ("8xL40S",):  # nothing of an L40S is more than an H100 has
        assert set(found.values()) == {Status.PASS}
    else:
        assert found.keys() == demanded.keys()
        assert set(found.values()) != {Status.PASS}, found


def test_a_card_that_is_missing_or_capped_is_found(planted: Planted) -> None:
    def capped(answer: str) -> str:
        assert '"power_limit":700.0' in answer.replace(" ", "")
        return answer.replace(" ", "").replace('"power_limit":700.0', '"power_limit":500.0', 1)

    path = planted.root / "calls/nvml.json"
    planted.write("calls/nvml.json", capped(path.read_text()))
    found = judged(planted.facts(), 'profile = "8xH100"')
    assert {check for check, status in found.items() if status is Status.FAIL} == {"nvidia.power_limit"}


def test_ones_own_criteria_stand_in_place_of_those_of_the_profile(good_facts: Facts) -> None:
    text = 'profile = "8xH100"\n[criteria]\naccelerator.count.equals = 7\nmemory.total.min = "1 GiB"\n'
    found = judged(good_facts, text)
    assert found["accelerator.count"] is Status.FAIL
    assert found["memory.total"] is Status.PASS
    assert found["nvidia.nvlinks"] is Status.PASS


@pytest.mark.parametrize("text", ['profile = "8xH10"', "profile = 8", "[profile]\nx = 1"])
def test_what_is_no_profile_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        config.parse_criteria(text, "my.toml")
    assert "my.toml:1" in refused.value.show("en")
    assert "8xH100" in refused.value.show("zh")


def test_the_option(planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("[criteria]\nmemory.total.min = 1\n")
    root = ["check", "--root", str(planted.root), "--store", str(tmp_path / "store")]
    assert entry([*root, "--profile", "8xH100", "--criteria", str(mine)]) == 2
    assert "profile = '8xH100'" in capsys.readouterr().err
    assert entry([*root, "--profile", "9xH100"]) == 2
    assert "8xH100" in capsys.readouterr().err


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_the_example_in_the_documentation_is_valid(page: str) -> None:
    text = (Path(__file__).resolve().parents[2] / page).read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.S)
    known = {**criteria_items(), **dict.fromkeys(PROBES, "")}
    criteria = config.parse_criteria(example, page, known, [*CHECKS, *PROBES])
    assert {"nvidia.memory", "memory.total", "nic.speed", "tcp.bandwidth"} <= set(criteria.items)
    assert [s.item for s in criteria.suppressions] == ["memory.swap"]


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_the_commands_in_the_documentation_exist(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is parsed with the help option added: a wrong word of it would be refused before the help is shown."""
    text = (Path(__file__).resolve().parents[2] / page).read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.S))
    lines = re.findall(r"^cwai-bench (.*?)(?:\s+#.*)?$", blocks, re.M)
    assert len(lines) >= 7
    for line in lines:
        words = shlex.split(line.replace("...", ""))
        with pytest.raises(SystemExit) as ended:
            entry([*words, "--help"])
        assert ended.value.code == 0, line
        command, *options = words
        capsys.readouterr()
        for option in (w for w in options if w.startswith("--")):
            with pytest.raises(SystemExit):
                entry([command, "--help"])
            assert option in capsys.readouterr().out, line
