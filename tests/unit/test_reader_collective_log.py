"""What a collective library logs: which one, over what, and how; of several generations, of forks, and of junk."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwai_bench.collective_library import Version
from cwai_bench.readers import Unreadable
from cwai_bench.readers.collective_log import Choice, CollectiveLog, Feature, Way, collective_log, merge

LOGS = Path(__file__).resolve().parent.parent / "fixtures" / "collective"


def log(name: str) -> str:
    return (LOGS / name).read_text()


def message(text: str) -> CollectiveLog:
    return collective_log(f"n:1:1 [0] NCCL INFO {text}\n")


def test_two_nodes_over_infiniband() -> None:
    told = collective_log(log("nccl_h100_two_nodes.log"))
    assert told.versions == (Version("NCCL", "2.27.5", "", "cuda12.9"),)
    assert told.networks == ("IB",)
    assert told.nics == {0: "mlx5_0:1/IB", 1: "mlx5_1:1/IB"}
    assert told.used_nics == ["mlx5_0:1/IB", "mlx5_1:1/IB"]
    assert told.ways == {
        Way("NET", "IB", 0, True): 1,
        Way("NET", "IB", 1, True): 2,
        Way("P2P", "CUMEM/read"): 2,
    }
    assert told.gpudirect is True
    assert told.nvls == Feature(True, "Connected NVLS tree")
    assert told.sharp.ready is False
    assert "disabling CollNet" in told.sharp.said
    assert told.choices == (
        Choice("all_reduce", 8 << 20, "RING", "LL128"),
        Choice("all_reduce", 1 << 30, "NVLS_TREE", "SIMPLE"),
        Choice("all_gather", 64 << 20, "RING", "SIMPLE"),
    )
    assert told.environment == {
        "NCCL_IB_QPS_PER_CONNECTION": "4",
        "NCCL_IB_HCA": "mlx5_0,mlx5_1",
        "NCCL_ALGO": "allreduce:ring,nvlstree",
    }
    assert len(told.warnings) == 1
    assert told.warnings[0].startswith("NET/IB: Got completion from peer")


def test_no_infiniband_found_and_sockets_used() -> None:
    told = collective_log(log("nccl_a100_sockets.log"))
    assert told.versions == (Version("NCCL", "2.19.4", "", "cuda12.2"),)
    assert (told.networks, told.no_ib, told.nics) == (("Socket",), True, {})
    assert told.interfaces == ("eth0", "eth1")
    assert told.between_nodes == {Way("NET", "Socket", 0, False): 1}
    assert told.gpudirect is None, "sockets never have it"
    assert told.ways[Way("SHM", "direct/direct")] == told.ways[Way("SHM", "direct")] == 1
    assert told.nvls.ready is False
    assert told.sharp == Feature(), "nobody spoke of it, and 'collnet channels' tells nothing"
    assert told.environment == {"NCCL_IB_DISABLE": "0"}


def test_algorithms_by_number_as_by_name() -> None:
    told = collective_log(log("nccl_a100_sockets.log"))
    assert told.choices == (Choice("", 4096, "TREE", "LL"), Choice("all_reduce", 8192, "RING", "SIMPLE"))
    assert told.choice("all_reduce", 4096, 9) == Choice("all_reduce", 4096, "TREE", "LL")
    assert told.choice("broadcast", 8192, 9) is None


def test_a_fork_with_sharp_and_without_gpudirect() -> None:
    told = collective_log(log("ctccl_sharp.log"))
    assert [str(v) for v in told.versions] == ["CTCCL version 0.2.0(nccl 2.19.4)+cuda12.2"]
    assert told.sharp == Feature(True, "rank 0 Connected CollNet")
    assert Way("COLLNET", "SHARP", 0, True) in told.between_nodes
    assert told.gpudirect is False, "one connection goes through the host's memory"
    assert told.used_nics == ["mlx5_0:1/IB/SHARP"]
    assert told.nics[1] == "mlx5_1:1/RoCE"


def test_rccl() -> None:
    told = collective_log(log("rccl.log"))
    assert told.versions == (Version("RCCL", "2.27.7"),)
    assert told.ways == {Way("P2P", "direct pointer"): 1}


def test_sizes_of_one_rank_and_of_all() -> None:
    """Newer versions count one rank's part of an all-gather; a size that fits twice tells nothing."""
    part = message("AllGather: 1024 Bytes -> Algo RING proto LL channel{Lo..Hi}={0..0}")
    assert part.choice("all_gather", 8192, 8) == Choice("all_gather", 8192, "RING", "LL")
    both = merge([part, message("AllGather: 8192 Bytes -> Algo RING proto SIMPLE channel{Lo..Hi}={0..0}")])
    assert both.choice("all_gather", 8192, 8) is None
    assert both.choice("all_reduce", 1024, 8) is None


@pytest.mark.parametrize(
    ("said", "ready"),
    [
        ("CollNet is not supported or fails to initialize, ignoring NCCL_ALGO=COLLNET", False),
        ("Cannot initialize CollNet, using point-to-point network instead", False),
        ("rank 12 Connected CollNet", True),
        ("16 coll channels, 16 collnet channels, 0 nvls channels, 16 p2p channels", None),
        ("NCCL_COLLNET_ENABLE set by environment to 1.", None),
    ],
)
def test_whether_sharp_was_set_up(said: str, ready: bool | None) -> None:
    assert message(said).sharp.ready is ready
    assert collective_log(f"n:1:1 [0] f.cc:1 NCCL WARN {said}\n").sharp.ready is ready


def test_processes_are_merged() -> None:
    one, other = (collective_log(log(name)) for name in ("nccl_h100_two_nodes.log", "nccl_a100_sockets.log"))
    both = merge([one, other, one])
    assert both.networks == ("IB", "Socket")
    assert len(both.versions) == 2
    assert both.ways[Way("NET", "IB", 1, True)] == 4
    assert both.nvls.ready is True
    assert both.nics == one.nics
    elsewhere = merge([one, one._replace(nics={0: "mlx5_4:1/IB"})])
    assert elsewhere.nics == {0: "mlx5_0:1/IB|mlx5_4:1/IB", 1: "mlx5_1:1/IB"}
    assert merge([]) == CollectiveLog()


@pytest.mark.parametrize(
    "text", ["", "\n\n", "all is well\n", "NCCL version of the day\n", "# nccl-tests version 2.19.6\n"]
)
def test_what_is_no_log_is_refused(text: str) -> None:
    with pytest.raises(Unreadable, match="NCCL_DEBUG=INFO"):
        collective_log(text)


def test_a_line_that_another_was_printed_into_tells_nothing() -> None:
    whole = "AllReduce: 4096 Bytes -> Algo RING pro"
    assert message(whole).choices == ()
    assert message("Channel 00/0 : 0[0] -> 8[0] [send] via NET/IB/n:1:1 [0] NCCL INFO").ways == {}


def test_a_hostile_log_is_bounded() -> None:
    lines = [f"n:1:1 [0] NCCL INFO AllReduce: {i} Bytes -> Algo RING proto LL\n" for i in range(9000)]
    lines += [f"n:1:1 [0] NCCL INFO NCCL_X{i} set by environment to {'y' * 999}\n" for i in range(5000)]
    lines += [f"n:1:1 [0] f.cc:1 NCCL WARN {i} {'z' * 9999}\n" for i in range(200)]
    lines += [f"n:1:1 [0] NCCL INFO Channel 00 : 0 -> 1 via NET/IB/{i}\n" for i in range(9999)]
    told = collective_log("".join(lines))
    assert len(told.choices) == len(told.environment) == len(told.ways) == 4096
    assert max(map(len, told.environment.values())) == 200
    assert len(told.warnings) == 64
    assert max(map(len, told.warnings)) == 300


WHOLE = log("nccl_h100_two_nodes.log")


@given(st.text(), st.integers(0, len(WHOLE)))
def test_junk_is_unreadable_and_nothing_worse(junk: str, at: int) -> None:
    for text in (junk, WHOLE[:at] + junk + WHOLE[at:], f"n:1:1 [0] NCCL INFO {junk}"):
        with contextlib.suppress(Unreadable):
            collective_log(text)
