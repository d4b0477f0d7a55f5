"""Which collective library was loaded, by the line of its log, by its number, and by the strings of its file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwai_bench import collective_library
from cwai_bench.collective_library import Version, folded, mixed, of_code, of_file, of_line
from cwai_bench.probes.nccl import mixture

CTCCL = Version("CTCCL", "0.2.0", "2.19.4", "cuda12.2")


@pytest.mark.parametrize(
    ("line", "version", "shown"),
    [
        ("NCCL version 2.21.5+cuda12.4", Version("NCCL", "2.21.5", "", "cuda12.4"), "NCCL version 2.21.5+cuda12.4"),
        ("CTCCL version 0.2.0(nccl 2.19.4)+cuda12.2", CTCCL, "CTCCL version 0.2.0(nccl 2.19.4)+cuda12.2"),
        ("CTCCCL version 0.2.0(nccl 2.19.4)+cuda12.2", CTCCL._replace(name="CTCCCL"), None),
        ("VCCL version 2.26.62+cuda12.8", Version("VCCL", "2.26.62", "", "cuda12.8"), None),
        ("NCCL version 2.27.5+cudaCUDA_MAJOR.CUDA_MINOR", Version("NCCL", "2.27.5"), "NCCL version 2.27.5"),
        ("RCCL version : 2.27.7-HEAD:29e1567", Version("RCCL", "2.27.7"), "RCCL version 2.27.7"),
        ("RCCL version 2.18.3+hip6.0 HEAD:5bc6ac9+", Version("RCCL", "2.18.3", "", "hip6.0"), None),
        ("node1:41:41 [0] NCCL INFO NCCL version 2.7.8+cuda10.1", Version("NCCL", "2.7.8", "", "cuda10.1"), None),
        ("Mismatched NCCL version detected : rank 3 version 21905", None, None),
        ("# nccl-tests version 2.19.6 nccl-headers=22105", None, None),
        ("NCCL version %s", None, None),
        ("", None, None),
    ],
)
def test_every_form_of_the_line(line: str, version: Version | None, shown: str | None) -> None:
    found = of_line(line)
    assert found == version
    assert shown is None or str(found) == shown
    assert found is None or of_line(str(found)) == found, "what is said of it is read again as it was"


@pytest.mark.parametrize(
    ("code", "number"),
    [
        (2708, "2.7.8"),
        (2804, "2.8.4"),
        (20906, "2.9.6"),
        (22105, "2.21.5"),
        (23203, "2.32.3"),
        (0, None),
        (-1, None),
        (7, None),
        (10**9, None),
    ],
)
def test_both_codings_of_the_number(code: int, number: str | None) -> None:
    found = of_code(code)
    assert (None if found is None else found.interface) == number
    assert found is None or str(found) == f"NCCL interface {number}"


def library(tmp_path: Path, *strings: bytes, before: int = 0) -> Path:
    path = tmp_path / "libnccl.so.2"
    path.write_bytes(b"\x7fELF\0" + b"x" * before + b"\0" + b"\0".join(strings) + b"\0")
    return path


LINE = b"NCCL version 2.21.5+cuda12.4"


@pytest.mark.parametrize("before", [0, *range(collective_library._PIECE - 40, collective_library._PIECE + 5, 3)])
def test_the_strings_of_a_file_wherever_they_lie(tmp_path: Path, before: int) -> None:
    path = library(
        tmp_path, b"Mismatched NCCL version detected : rank %d version %d", LINE, b"AllReduce", before=before
    )
    assert of_file(path) == Version("NCCL", "2.21.5", "", "cuda12.4")


def test_a_fork_counts_by_its_own_line(tmp_path: Path) -> None:
    assert of_file(library(tmp_path, LINE, b"CTCCL version 0.2.0(nccl 2.19.4)+cuda12.2")) == CTCCL


@pytest.mark.parametrize("where", ["lib64", "aarch64-linux/lib64"])
@pytest.mark.parametrize("file", collective_library.TOOLKIT_FILES)
def test_hccl_is_of_the_version_of_its_toolkit(tmp_path: Path, where: str, file: str) -> None:
    path = tmp_path / "cann-8.5.1" / where / "libhccl.so"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x7fELF\0HcclAllReduce\0")
    assert of_file(path) is None, "nothing tells it"
    told = tmp_path / "cann-8.5.1" / file
    told.parent.mkdir(parents=True)
    told.write_text("timestamp=20260101\nVersion=8.5.1\nversion_dir=cann-8.5.1\n")
    assert of_file(path) == Version("HCCL", "8.5.1")
    linked = tmp_path / "libhccl.so"
    linked.symlink_to(path)
    assert str(of_file(linked)) == "HCCL version 8.5.1"
    with pytest.raises(FileNotFoundError):
        of_file(path.with_name("libhccl_fwk.so"))


def test_a_file_that_tells_none_and_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert of_file(library(tmp_path, b"HcclAllReduce")) is None
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert of_file(pipe) is None
    with pytest.raises(FileNotFoundError):
        of_file(tmp_path / "libnccl.so.3")
    monkeypatch.setattr(collective_library, "FILE_LIMIT", 1)
    monkeypatch.setattr(collective_library, "_PIECE", 8)
    assert of_file(library(tmp_path, LINE)) is None, "no more is read than was allowed"


def test_ranks_that_load_the_same_are_not_mixed() -> None:
    assert mixed(dict.fromkeys(range(8), CTCCL)) is None
    assert mixed({}) is None


def test_mixed_versions_name_their_ranks_in_both_languages() -> None:
    new, old = of_line("NCCL version 2.21.5+cuda12.4"), of_line("NCCL version 2.19.3+cuda12.2")
    found = mixed({rank: old if rank in (3, 9) else new for rank in range(16)})
    assert found is not None
    assert found.refused
    assert found.groups[old] == [3, 9]
    assert found.text.en.endswith(
        "NCCL version 2.21.5+cuda12.4: ranks 0-2, 4-8, 10-15; NCCL version 2.19.3+cuda12.2: ranks 3, 9"
    )
    assert "NCCL version 2.19.3+cuda12.2：rank 3, 9" in found.text.zh
    assert "refuse to start" in found.text.en


def test_other_builds_of_one_version_start_all_the_same_and_are_told() -> None:
    one, other = of_line("NCCL version 2.21.5+cuda12.4"), of_line("NCCL version 2.21.5+cuda11.8")
    found = mixed({0: one, 1: other})
    assert found is not None
    assert not found.refused
    fork = mixed({0: of_line("NCCL version 2.19.4+cuda12.2"), 1: CTCCL})
    assert fork is not None
    assert not fork.refused, "both keep the interface of 2.19.4"


def test_what_is_not_known_is_not_like_the_rest() -> None:
    found = mixed({0: CTCCL, 1: None, 2: CTCCL})
    assert found is not None
    assert not found.refused
    assert "not known: ranks 1" in found.text.en
    assert "未知：rank 1" in found.text.zh
    nothing = mixed({0: None, 1: None})
    assert nothing is not None
    assert "not known: ranks 0-1" in nothing.text.en


def test_ranks_tell_each_other_what_they_have_loaded_as_text() -> None:
    assert mixture([str(CTCCL)] * 8) is None
    assert mixture([None, None]) is None
    found = mixture([str(CTCCL), "NCCL version 2.21.5+cuda12.4"])
    assert found is not None
    assert found.refused
    assert "CTCCL version 0.2.0(nccl 2.19.4)+cuda12.2: ranks 0" in found.text.en


def test_very_many_ranks_are_told_in_short() -> None:
    assert folded(list(range(0, 100, 2))).endswith("30 … (50)")
    assert folded([5]) == "5"


@given(st.text(), st.integers(0, 40))
def test_junk_tells_none_or_a_version_and_nothing_worse(junk: str, at: int) -> None:
    line = LINE.decode()
    for text in (junk, line[:at] + junk + line[at:]):
        found = of_line(text)
        assert found is None or (found.number and len(str(found)) < 150)


@given(st.integers())
def test_any_number_is_a_version_or_none(code: int) -> None:
    found = of_code(code)
    assert found is None or found.interface.count(".") == 2
