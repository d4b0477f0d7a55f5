"""The command line of ``multipath``: what its words mean, and what it does when only asked for a plan."""

from __future__ import annotations

from typing import Any

import pytest

from cwai_bench.cli import multipath, options
from cwai_bench.cli.execute import probe_options
from cwai_bench.cli.main import entry
from cwai_bench.cli.parser import Parser
from cwai_bench.errors import UsageError
from cwai_bench.probes import Options


def parsed(*argv: str) -> Options:
    parser = Parser("en", prog="cwai-bench multipath")
    multipath.own(parser)
    options.common(parser, root=False)
    return probe_options(options.parse(parser, argv))


def test_nothing_said_is_every_default() -> None:
    assert parsed() == Options()


def test_every_option_reaches_the_probe() -> None:
    given: dict[str, Any] = {
        "--transport": "verbs",
        "--policy": "pull,equal",
        "--scenario": "as_is,cut",
        "--size": "64M",
        "--duration": "2s",
        "--repeat": "5",
        "--connections": "8",
        "--stall": "0.5s",
        "--seed": "7",
        "--from": "n1/eth0,n1/eth1",
        "--to": "n2/eth0,n2/eth1",
        "--interface": "eth0,eth1",
        "--device": "mlx5_0,mlx5_1:2",
        "--as-node": "mlx5_0=n1,mlx5_1=n2",
        "--gid-index": "3",
        "--qp-timeout": "18",
        "--retries": "2",
    }
    assert parsed(*(word for pair in given.items() for word in pair)) == Options(
        transport="verbs",
        policies=("pull", "equal"),
        scenarios=("as_is", "cut"),
        size=64 << 20,
        duration=2.0,
        repeat=5,
        connections=8,
        stall=0.5,
        seed=7,
        from_ends=("n1/eth0", "n1/eth1"),
        to_ends=("n2/eth0", "n2/eth1"),
        interfaces=("eth0", "eth1"),
        device=("mlx5_0", "mlx5_1:2"),
        as_node=("mlx5_0=n1", "mlx5_1=n2"),
        gid_index=3,
        qp_timeout=18,
        retries=2,
    )


@pytest.mark.parametrize("argv", [("--size", "0"), ("--repeat", "0"), ("--from", "a/b/c")])
def test_what_means_nothing_is_refused(argv: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=argv[0]):
        parsed(*argv)


def test_the_help_says_that_no_device_is_touched(capsys: pytest.CaptureFixture[str]) -> None:
    for lang, words in (
        ("en", ("only when asked for", "never on a device")),
        ("zh", ("仅在明确要求时", "绝不触及设备")),
    ):
        with pytest.raises(SystemExit):
            entry(["--lang", lang, "multipath", "--help"])
        said = "".join(capsys.readouterr().out.split())
        assert all("".join(word.split()) in said for word in words)


def test_a_dry_run_names_what_would_be_measured_and_what_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        entry(["multipath", "--dry-run", "--lang", "en"])
    said = capsys.readouterr().out
    assert "multipath.as_is#0" in said
    assert "--scenario cut" in said


def test_an_interface_that_is_not_here_is_refused_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry(["multipath", "--interface", "lo,nosuch0", "--lang", "en"]) == 2
    assert "nosuch0" in capsys.readouterr().err
