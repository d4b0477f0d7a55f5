"""NCCL's rules for several values, for numbers and for names of devices, as its own source has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwai_bench.nccl_settings import RULES, Setting, chosen, in_force, kept, number, read_by_others, unmatched
from cwai_bench.readers.nccl_conf import Line, nccl_conf


def test_the_environment_wins_then_the_own_file_then_the_systems_and_the_first_line() -> None:
    own = [("NCCL_A", "own"), ("NCCL_B", "own"), ("NCCL_B", "second"), (None, "x")]
    system = [("NCCL_A", "system"), ("NCCL_B", "system"), ("NCCL_C", "system")]
    assert in_force({"NCCL_A": "env"}, [("/home/.nccl.conf", own), ("/etc/nccl.conf", system)]) == {
        "NCCL_A": Setting("env", "environment"),
        "NCCL_B": Setting("own", "/home/.nccl.conf"),
        "NCCL_C": Setting("system", "/etc/nccl.conf"),
    }


@pytest.mark.parametrize(
    ("value", "read", "clean"),
    [
        ("8", 8, True),
        (" 0x10 ", 16, True),
        ("010", 8, True),
        ("-1", -1, True),
        ("08", 0, False),
        ("8k", 8, False),
        ("yes", 0, False),
        ("true", 0, False),
        ("1.5", 1, False),
        ("", 0, False),
        ("9" * 30, int("9" * 30), False),
    ],
)
def test_numbers_are_read_as_c_reads_them(value: str, read: int, clean: bool) -> None:
    assert number(value) == (read, clean)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("NCCL_IB_QPS_PER_CONNECTION", ("1", "128", "0x8"), ("0", "129", "-1", "four")),
        ("NCCL_IB_TIMEOUT", ("0", "22", "31"), ("32", "-1")),
        ("NCCL_IB_RETRY_CNT", ("0", "7"), ("8",)),
        ("NCCL_IB_GID_INDEX", ("-1", "3"), ("-2", "256")),
        ("NCCL_IB_TC", ("-1", "106"), ("256",)),
        ("NCCL_CROSS_NIC", ("0", "1", "2"), ("3",)),
        ("NCCL_SOCKET_FAMILY", ("AF_INET6",), ("af_inet", "IPv6")),
        ("NCCL_NET_GDR_LEVEL", ("PHB", "3"), ("phb", "FAR")),
        ("NCCL_NTHREADS", ("256",), ("96",)),
        ("NCCL_DEBUG", ("info", "WARN"), ("verbose",)),
        ("NCCL_DEBUG_SUBSYS", ("INIT,NET", "^COLL,ENV"), ("INIT,NETWORK",)),
        (
            "NCCL_ALGO",
            ("ring", "^tree", "Ring,Tree;allreduce:NVLS", "allreduce:^tree"),
            ("rings", "Ring;Tree", "x:Ring"),
        ),
        ("NCCL_PROTO", ("LL,LL128,Simple", "^LL128;allreduce:LL128"), ("LL256",)),
        ("CTCCL_IB_RETRY_DISABLE", ("0", "1"), ("2", "on")),
    ],
)
def test_values_that_are_accepted_and_such_that_are_not(name: str, good: tuple[str, ...], bad: tuple[str, ...]) -> None:
    assert [value for value in good if RULES[name].wrong(value) is not None] == []
    assert [value for value in bad if RULES[name].wrong(value) is None] == []


@given(st.sampled_from(sorted(RULES)), st.text(max_size=60))
def test_a_rule_judges_any_value(name: str, value: str) -> None:
    complaint = RULES[name].wrong(value)
    assert complaint is None or (complaint.en and complaint.zh and len(complaint.en) < 400)


def test_devices_are_named_by_beginnings_by_whole_names_and_by_what_they_are_not() -> None:
    assert chosen("mlx5_1").takes("mlx5_10")
    assert not chosen("=mlx5_1").takes("mlx5_10")
    assert chosen("=mlx5_1:2,mlx5_0").takes("mlx5_1", 2)
    assert not chosen("=mlx5_1:2").takes("mlx5_1", 1)
    assert chosen("=mlx5_0::0:0").takes("mlx5_0", 2), "an empty port is every port"
    assert not chosen("^docker,lo").takes("lo")
    assert chosen("^=lo").takes("lo1")
    assert unmatched(chosen("=mlx5_0,mlx5_7:1"), [("mlx5_0", 1), ("mlx5_7", 2)]) == ["mlx5_7:1"]
    assert unmatched(chosen("^=nothing"), [("mlx5_0", 1)]) == []


@given(st.text(max_size=80), st.text(min_size=1, max_size=10))
def test_a_filter_and_its_opposite_share_all_devices(value: str, name: str) -> None:
    plain = value.lstrip("^")
    assert chosen(plain).takes(name, 1) != chosen("^" + plain).takes(name, 1)


def test_only_the_family_is_kept_and_no_secret() -> None:
    assert kept("NCCL_IB_HCA")
    assert kept("CTCCL_IB_RETRY_DISABLE")
    assert kept("LD_PRELOAD")
    assert not kept("AWS_SECRET_ACCESS_KEY")
    assert not kept("NCCL_PLUGIN_AUTH_TOKEN")
    assert not kept("PATH")
    assert kept("NCCL_IB_PKEY")
    assert read_by_others("TORCH_NCCL_BLOCKING_WAIT")
    assert not read_by_others("NCCL_IB_TIMOUT")


def test_a_file_is_read_as_the_library_reads_it() -> None:
    text = "# a comment\nNCCL_DEBUG=WARN\r\n\n NCCL_A = 1 \nNCCL_B='x=y'\nNCCL_C\n #NCCL_D=1\n"
    assert nccl_conf(text) == [
        Line(2, "NCCL_DEBUG", "WARN"),
        Line(4, " NCCL_A ", " 1 "),
        Line(5, "NCCL_B", "'x=y'"),
        Line(6, None, "NCCL_C"),
        Line(7, " #NCCL_D", "1"),
    ]


@given(st.text())
def test_any_text_is_a_file_of_settings(text: str) -> None:
    lines = nccl_conf(text)
    assert all(len(line.value) <= 1023 and (line.name is None or len(line.name) <= 1023) for line in lines)
    assert len(lines) <= text.count("\n") + 1
