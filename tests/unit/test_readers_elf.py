"""Libraries and the loader's tables as bytes: files of a real compiler, and bytes that are anything."""

from __future__ import annotations

import io
import platform
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwai_bench.readers import Unreadable, elf, loader_cache
from cwai_bench.readers.process_maps import mapped_files, variables
from tests.unit.shared_objects import SharedObjects


@pytest.fixture
def built(tmp_path: Path) -> SharedObjects:
    return SharedObjects(tmp_path)


def test_a_library_tells_what_it_is(built: SharedObjects) -> None:
    dependency = built.make("libdep.so", "int dep(void) { return 1; }", soname="libdep.so.1")
    path = built.make(
        "libnccl-net-x.so",
        "extern int dep(void); int ncclNetPlugin_v8 = 8; int ncclNetPlugin_v10; static int ncclNetPlugin_v9 = 1;"
        ' int other(void) { return dep() + ncclNetPlugin_v9; } const char *text = "NCCL_IB_HCA";',
        *("-Wl,--enable-new-dtags", "-Wl,-rpath,$ORIGIN/deps:/opt/x", str(dependency)),
        soname="libnccl-net-x.so.0",
    )
    with path.open("rb") as file:
        told = elf.shared_object(file)
        assert (told.machine, told.soname, told.rpath) == (platform.machine(), "libnccl-net-x.so.0", ())
        assert told.runpath == ("$ORIGIN/deps", "/opt/x")
        assert "libdep.so.1" in told.needed
        assert elf.exported(file, "ncclNetPlugin_v") == ["ncclNetPlugin_v10", "ncclNetPlugin_v8"]
        assert elf.exported(file, "dep") == [], "it is only asked for"
        constants = elf.constants(file)
        assert constants is not None
        assert b"NCCL_IB_HCA\0" in constants


@pytest.mark.parametrize("style", ["sysv", "gnu", "both"])
def test_both_kinds_of_hash_tables_are_counted(built: SharedObjects, style: str) -> None:
    source = " ".join(f"int symbol_{n} = {n};" for n in range(100))
    path = built.make("liba.so", source, f"-Wl,--hash-style={style}")
    with path.open("rb") as file:
        assert elf.exported(file, "symbol_") == sorted(f"symbol_{n}" for n in range(100))


def test_an_old_rpath_is_told_apart(built: SharedObjects) -> None:
    path = built.make("liba.so", "int a;", "-Wl,--disable-new-dtags", "-Wl,-rpath,/opt/old")
    with path.open("rb") as file:
        told = elf.shared_object(file)
    assert (told.rpath, told.runpath) == (("/opt/old",), ())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "cut short"),
        (b"#!/bin/sh\n" + b" " * 64, "no ELF file"),
        (b"\x7fELF\x01\x01" + bytes(58), "64 bits"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 62) + bytes(44), "no shared object"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, 62) + bytes(44), "no dynamic section"),
    ],
)
def test_what_is_no_library_says_why(data: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        elf.shared_object(io.BytesIO(data))


def test_a_library_that_was_changed_anywhere_is_read_or_refused(built: SharedObjects) -> None:
    whole = built.make("liba.so", 'int nccl_a; const char *b = "NCCL_DEBUG";').read_bytes()
    headers = [*range(0, 0x400), *range(0, len(whole), 61)]
    for at in headers:
        for value in (0x00, 0xFF):
            changed = whole[:at] + bytes([value]) + whole[at + 1 :]
            for read in (elf.shared_object, elf.constants, lambda file: elf.exported(file, "nccl")):
                try:
                    read(io.BytesIO(changed))
                except Unreadable:
                    pass


@given(st.binary(max_size=600))
def test_any_bytes_behind_the_mark_are_read_or_refused(data: bytes) -> None:
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, 62)
    for file in (io.BytesIO(data), io.BytesIO(head + data)):
        for read in (elf.shared_object, elf.constants, lambda f: elf.exported(f, "nccl")):
            try:
                read(file)
            except Unreadable:
                pass


# ------------------------------------------------------------------------------------------------ the loader's cache


def cache(*entries: tuple[int, int, str, str], old: int | None = None) -> bytes:
    """Entries as (flags, hardware, name, path); ``old``: behind a table of the older format with so many entries."""
    texts = b"".join(f"{name}\0{path}\0".encode() for _, _, name, path in entries)
    at = 48 + 24 * len(entries)
    rows = b""
    for flags, hardware, name, path in entries:
        rows += struct.pack("<iIIIQ", flags, at, at + len(name) + 1, 0, hardware)
        at += len(name) + len(path) + 2
    new = loader_cache.NEW + struct.pack("<II20x", len(entries), len(texts)) + rows + texts
    if old is None:
        return new
    head = loader_cache.OLD + struct.pack("<I", old) + bytes(12 * old)
    return head + bytes(-len(head) % 8) + new


X86 = 0x0303


def test_the_cache_tells_the_path_for_this_machine_and_the_first_counts() -> None:
    data = cache(
        (X86, 0, "libnccl.so.2", "/usr/lib/libnccl.so.2"),
        (X86, 0, "libnccl.so.2", "/opt/other/libnccl.so.2"),
        (3, 0, "lib32.so", "/usr/lib32/lib32.so"),
        (0x0A03, 0, "libarm.so", "/usr/lib/libarm.so"),
        (X86, 1 << 62, "libfast.so", "/usr/lib/glibc-hwcaps/x86-64-v3/libfast.so"),
    )
    assert loader_cache.loader_cache(data, "x86_64") == {"libnccl.so.2": "/usr/lib/libnccl.so.2"}
    assert loader_cache.loader_cache(data, "aarch64") == {"libarm.so": "/usr/lib/libarm.so"}
    both = cache((X86, 0, "a", "/a"), old=3)
    assert loader_cache.loader_cache(both, "x86_64") == {"a": "/a"}


def test_the_cache_of_this_machine_is_what_ldconfig_says() -> None:
    ldconfig = shutil.which("ldconfig", path="/usr/sbin:/sbin")
    if ldconfig is None or not Path("/etc/ld.so.cache").exists() or platform.machine() != "x86_64":
        pytest.skip("no cache of glibc's loader on this machine")
    said = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True, timeout=20).stdout
    lines = [line.strip() for line in said.splitlines() if "(libc6,x86-64)" in line]
    found = loader_cache.loader_cache(Path("/etc/ld.so.cache").read_bytes(), "x86_64")
    assert {line.split(" ")[0] for line in lines} == set(found)
    assert {line.split(" => ")[1] for line in lines} >= set(found.values())


@given(st.binary(max_size=300), st.sampled_from([b"", loader_cache.NEW, loader_cache.OLD]))
def test_any_bytes_are_a_cache_or_none(data: bytes, head: bytes) -> None:
    try:
        loader_cache.loader_cache(head + data, "x86_64")
    except Unreadable:
        pass


# ---------------------------------------------------------------------------------------------------------- processes

MAPS = """\
55d0c0a00000-55d0c0a02000 r--p 00000000 08:01 131 /usr/bin/python3.11
7f1f2c000000-7f1f2c021000 rw-p 00000000 00:00 0
7f1f40000000-7f1f41000000 r-xp 00001000 08:01 77 /opt/a b/libnccl.so.2 (deleted)
7f1f41000000-7f1f42000000 r--p 01001000 08:01 77 /opt/a b/libnccl.so.2 (deleted)
7ffd1b7e0000-7ffd1b801000 rw-p 00000000 00:00 0 [stack]
"""


def test_maps_name_files_and_those_that_are_gone() -> None:
    assert mapped_files(MAPS) == {"/usr/bin/python3.11": True, "/opt/a b/libnccl.so.2": False}
    with pytest.raises(Unreadable, match="no line of maps"):
        mapped_files("what\n")


def test_the_first_of_two_variables_counts() -> None:
    assert variables("A=1\0B=x=y\0A=2\0C\0=z\0") == {"A": "1", "B": "x=y"}


@settings(deadline=None)
@given(st.text())
def test_any_text_is_maps_or_none(text: str) -> None:
    assert all(name for name in variables(text))
    try:
        assert all(path.startswith("/") for path in mapped_files(text))
    except Unreadable:
        pass
