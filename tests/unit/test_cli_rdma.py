"""The command line of ``rdma``: what its words mean, and what NCCL's variables mean to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cwai_bench.cli import options, rdma
from cwai_bench.cli import parser as words
from cwai_bench.cli.execute import probe_options
from cwai_bench.cli.parser import Parser
from cwai_bench.errors import UsageError
from cwai_bench.launch import front
from cwai_bench.probes import Options


def parsed(*argv: str, environ: dict[str, str] | None = None) -> Options:
    parser = Parser("en", prog="cwai-bench rdma")
    rdma.own(parser)
    options.common(parser, root=False)
    args = options.parse(parser, argv)
    if args.like_nccl:
        rdma.like_nccl(args, environ or {})
    return probe_options(args)


def test_nothing_said_is_every_default() -> None:
    assert parsed() == Options()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("64K,1M", (65536, 1 << 20)),
        ("2..16", (2, 4, 8, 16)),
        ("2..8M", tuple(2**i for i in range(1, 24))),
        ("4..10", (4, 8)),
        ("8,2..8,1K", (8, 2, 4, 1024)),
    ],
)
def test_sizes_may_be_ranges(text: str, expected: tuple[int, ...]) -> None:
    assert words.sizes(text) == expected


@pytest.mark.parametrize("text", ["8..2", "..8", "2..", "0..8", "2...8", "x..8"])
def test_ranges_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--sizes"):
        parsed("--sizes", text)


def test_every_option_reaches_the_probes() -> None:
    given = {
        "verb": "write,read",
        "queue-pairs": "128",
        "pairs": "sample:3",
        "from": "n1/mlx5_0,n2",
        "to": "*/mlx5_0",
        "device": "mlx5_0,mlx5_1:1",
        "as-node": "mlx5_0=a,mlx5_1=b",
        "gid-index": "0",
        "mtu": "1024",
        "sl": "3",
        "traffic-class": "104",
        "qp-timeout": "18",
        "retries": "0",
        "depth": "64",
        "post-list": "16",
        "inline": "0",
    }
    found = parsed(
        *(word for option, value in given.items() for word in (f"--{option}", value)),
        "--relaxed-ordering",
        "--huge-pages",
        "--cold",
    )
    assert found == Options(
        verb=("write", "read"),
        streams=128,
        pairs="sample:3",
        from_ends=("n1/mlx5_0", "n2"),
        to_ends=("*/mlx5_0",),
        device=("mlx5_0", "mlx5_1:1"),
        as_node=("mlx5_0=a", "mlx5_1=b"),
        gid_index=0,
        mtu=1024,
        service_level=3,
        traffic_class=104,
        qp_timeout=18,
        retries=0,
        depth=64,
        post_list=16,
        inline=0,
        relaxed_ordering=True,
        huge_pages=True,
        cold=True,
    )
    assert parsed("--verb", "all").verb == ("write", "read", "send")


@pytest.mark.parametrize(
    ("argv", "named", "step"),
    [
        (("--verb", "wirte"), "--verb: 'wirte'", "write,read,send"),
        (("--pairs", "sample:0"), "--pairs: 'sample:0'", "sample:4"),
        (("--pairs", "every"), "--pairs: 'every'", "ring, all, full"),
        (("--from", "n1/"), "--from: 'n1/'", "node1/mlx5_0"),
        (("--to", "/mlx5_0"), "--to: '/mlx5_0'", "node1/mlx5_0"),
        (("--to", "n1,,n2"), "--to: 'n1,,n2'", "node1/mlx5_0"),
        (("--as-node", "rxe0"), "--as-node: 'rxe0'", "rxe0=a,rxe1=b"),
        (("--as-node", "rxe0=a,rxe0=b"), "--as-node: 'rxe0=a,rxe0=b'", "each device once"),
        (("--gid-index", "-1"), "--gid-index", "--help"),
        (("--depth", "0"), "--depth", "--help"),
    ],
)
def test_wrong_words_are_refused_with_the_right_ones(argv: tuple[str, ...], named: str, step: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(*argv)
    assert named in caught.value.message.en
    assert caught.value.next_step is not None
    assert step in caught.value.next_step.en
    assert caught.value.message.zh != caught.value.message.en


def test_like_nccl_is_what_nccl_does_by_default() -> None:
    found = parsed("--like-nccl")
    assert found == Options(like_nccl=True, streams=1, qp_timeout=20)
    assert (found.retries, found.gid_index, found.traffic_class, found.service_level) == (7, -1, 0, 0)


def test_like_nccl_heeds_its_variables_and_the_command_line_comes_first() -> None:
    environ = {
        "NCCL_IB_TIMEOUT": "22",
        "NCCL_IB_RETRY_CNT": "5",
        "NCCL_IB_GID_INDEX": "3",
        "NCCL_IB_TC": "0x68",
        "NCCL_IB_SL": "2",
        "NCCL_IB_QPS_PER_CONNECTION": "4",
        "NCCL_IB_HCA": "=mlx5_0:1,mlx5_2",
    }
    told: dict[str, Any] = {
        "retries": 5,
        "gid_index": 3,
        "traffic_class": 104,
        "service_level": 2,
        "device": ("mlx5_0:1", "mlx5_2"),
        "like_nccl": True,
    }
    assert parsed("--like-nccl", environ=environ) == Options(qp_timeout=22, streams=4, **told)
    assert parsed("--like-nccl", "--qp-timeout", "14", "--streams", "8", environ=environ) == Options(streams=8, **told)
    assert parsed(environ=environ) == Options()


def test_the_variables_go_to_all_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_IB_TC", "104")
    command = front.mpirun_command(Path("/usr/bin/mpirun"), front.Ranks(2, ("n1", "n2")), ["rdma", "--like-nccl"])
    assert command[command.index("NCCL_IB_TC") - 1] == "-x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mlx5", ("mlx5*",)),
        ("mlx5_1:2", ("mlx5_1*:2",)),
        ("=mlx5_0,mlx5_1", ("mlx5_0", "mlx5_1")),
        ("^mlx5_3", ("^mlx5_3*",)),
        ("^=mlx5_3:1,mlx5_4", ("^mlx5_3:1", "mlx5_4")),
    ],
)
def test_the_devices_of_nccl(text: str, expected: tuple[str, ...]) -> None:
    assert rdma.nccl_devices(text) == expected


def test_a_variable_of_nccl_that_is_no_number_is_named() -> None:
    with pytest.raises(UsageError, match="NCCL_IB_TC='fast' is no number"):
        parsed("--like-nccl", environ={"NCCL_IB_TC": "fast"})
