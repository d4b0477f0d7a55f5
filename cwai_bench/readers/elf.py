"""ELF shared objects: what a library is for, what it needs, where it looks for that, and what it exports.

A file is read by its tables, never loaded, so nothing in it runs. Formats: System V gABI, chapters 4 and 5 (headers,
dynamic section, hash table); GNU hash table as glibc's elf/dl-lookup.c walks it; numbers of machines as in elf.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from cwai_bench.readers import Unreadable

MACHINES = {3: "i686", 21: "ppc64le", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64", 258: "loongarch64"}
"""e_machine, as ``uname -m`` calls it."""
STRINGS_LIMIT = 64 << 20
"""Bytes looked at of a section of constants: that of libtorch_cuda has some 20 MiB."""
HEADERS = 1024
DYNAMIC_LIMIT, NAMES_LIMIT, SYMBOLS_LIMIT, NAME_LIMIT = 4096, 64 << 20, 1 << 20, 4096

_LOAD, _DYNAMIC = 1, 2
_NEEDED, _HASH, _STRTAB, _SYMTAB, _STRSZ, _SONAME, _RPATH, _RUNPATH, _GNU_HASH = 1, 4, 5, 6, 10, 14, 15, 29, 0x6FFFFEF5


class SharedObject(NamedTuple):
    """``rpath`` and ``runpath``: the folders as they are written, with ``$ORIGIN``; the first has no effect where the
    second is there (ld.so(8))."""

    machine: str
    soname: str
    needed: tuple[str, ...]
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]


def shared_object(file: BinaryIO) -> SharedObject:
    """The library in ``file``, which can be sought in. Raises Unreadable, also for an executable and for 32 bits; what
    cannot be read raises OSError."""
    return _Elf(file).shared_object()


def exported(file: BinaryIO, start: str) -> list[str]:
    """The names beginning with ``start`` that a library defines for others, sorted. Raises as :func:`shared_object`."""
    elf = _Elf(file)
    return sorted(set(elf.exported(start.encode())))


def constants(file: BinaryIO) -> bytes | None:
    """The section ``.rodata``, where the strings of a program stand; None where it has none by that name.

    The code of the cards in a library is hundreds of times as large, and in other sections.
    """
    return _Elf(file).constants()


class _Elf:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        head = self._at(0, 64)
        if head[:4] != b"\x7fELF":
            raise Unreadable("it is no ELF file")
        if head[4:6] != b"\x02\x01":
            raise Unreadable("it is not of 64 bits, little-endian")
        kind, machine = struct.unpack_from("<HH", head, 16)
        if kind != 3:
            raise Unreadable("it is no shared object")
        self.machine = MACHINES.get(machine, f"machine {machine}")
        self._segments = self._table(head, 32, 54, 56)
        self._sections = (head, 40, 58, 60)

    def _at(self, offset: int, size: int) -> bytes:
        if offset < 0 or offset >= 1 << 62:
            raise Unreadable("a table is out of its bounds")
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            raise Unreadable("the file is cut short")
        return data

    def _table(self, head: bytes, offset_at: int, size_at: int, count_at: int) -> list[bytes]:
        """A table of headers; where ``head`` tells its place, the size of an entry, and how many there are."""
        (offset,) = struct.unpack_from("<Q", head, offset_at)
        (size,) = struct.unpack_from("<H", head, size_at)
        (count,) = struct.unpack_from("<H", head, count_at)
        if not count or not offset:
            return []
        if count > HEADERS or not 56 <= size <= 256:
            raise Unreadable("its headers are out of their bounds")
        data = self._at(offset, size * count)
        return [data[n * size : (n + 1) * size] for n in range(count)]

    def _offset(self, address: int) -> int:
        """Where in the file is what will be at ``address``."""
        for segment in self._segments:
            kind, _, offset, start, _, size = struct.unpack_from("<IIQQQQ", segment)
            if kind == _LOAD and start <= address < start + size:
                return int(offset + address - start)
        raise Unreadable("an address of it is in no segment")

    def _dynamic(self) -> list[tuple[int, int]]:
        for segment in self._segments:
            kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", segment)
            if kind == _DYNAMIC:
                if size > DYNAMIC_LIMIT * 16:
                    raise Unreadable("its dynamic section is out of bounds")
                found: list[tuple[int, int]] = []
                for tag, value in struct.iter_unpack("<QQ", self._at(offset, size - size % 16)):
                    if tag == 0:
                        break
                    found.append((tag, value))
                return found
        raise Unreadable("it has no dynamic section")

    def _names(self, dynamic: dict[int, int]) -> bytes:
        if _STRTAB not in dynamic or _STRSZ not in dynamic:
            raise Unreadable("it has no table of names")
        if dynamic[_STRSZ] > NAMES_LIMIT:
            raise Unreadable("its names are out of bounds")
        return self._at(self._offset(dynamic[_STRTAB]), dynamic[_STRSZ])

    def shared_object(self) -> SharedObject:
        dynamic = self._dynamic()
        names = self._names(dict(dynamic))

        def told(wanted: int) -> tuple[str, ...]:
            return tuple(_name(names, value) for tag, value in dynamic if tag == wanted)

        def folders(wanted: int) -> tuple[str, ...]:
            return tuple(part for text in told(wanted)[:1] for part in text.split(":") if part)

        soname = told(_SONAME)
        return SharedObject(
            self.machine, soname[0] if soname else "", told(_NEEDED), folders(_RPATH), folders(_RUNPATH)
        )

    def exported(self, start: bytes) -> Iterator[str]:
        dynamic = dict(self._dynamic())
        names = self._names(dynamic)
        if _SYMTAB not in dynamic:
            raise Unreadable("it has no table of symbols")
        table = self._at(self._offset(dynamic[_SYMTAB]), 24 * self._symbols(dynamic))
        for name, info, _, section, _, _ in struct.iter_unpack("<IBBHQQ", table):
            # Defined here, and not local to the file.
            if section != 0 and info >> 4 in (1, 2) and names.startswith(start, name):
                yield _name(names, name)

    def _symbols(self, dynamic: dict[int, int]) -> int:
        """How many there are: no header tells, but the table that finds them by their hashes ends with the last."""
        if _HASH in dynamic:
            (_, count) = struct.unpack("<II", self._at(self._offset(dynamic[_HASH]), 8))
            return _bounded(count)
        if _GNU_HASH not in dynamic:
            raise Unreadable("it has no hash table of symbols")
        start = self._offset(dynamic[_GNU_HASH])
        buckets, first, words, _ = struct.unpack("<IIII", self._at(start, 16))
        if _bounded(buckets) == 0:
            return _bounded(first)
        if words > SYMBOLS_LIMIT:
            raise Unreadable("its hash table is out of bounds")
        at = start + 16 + 8 * words
        last = max(struct.unpack(f"<{buckets}I", self._at(at, 4 * buckets)))
        if last < first:  # every bucket is empty
            return _bounded(first)
        chains = at + 4 * buckets
        while True:
            (hashed,) = struct.unpack("<I", self._at(chains + 4 * (_bounded(last) - first), 4))
            last += 1
            if hashed & 1:
                return _bounded(last)

    def constants(self) -> bytes | None:
        sections = self._table(*self._sections)
        (index,) = struct.unpack_from("<H", self._sections[0], 62)
        if index >= len(sections):
            return None
        _, _, _, _, offset, size = struct.unpack_from("<IIQQQQ", sections[index])
        names = self._at(offset, min(size, 1 << 16))
        for section in sections:
            name, kind, _, _, offset, size = struct.unpack_from("<IIQQQQ", section)
            if kind == 1 and names[name : name + 8] == b".rodata\0":
                return self._at(offset, min(size, STRINGS_LIMIT))
        return None


def _bounded(count: int) -> int:
    if count > SYMBOLS_LIMIT:
        raise Unreadable("its symbols are out of bounds")
    return count


def _name(names: bytes, at: int) -> str:
    end = names.find(b"\0", at, at + NAME_LIMIT)
    if end < 0:
        raise Unreadable("a name of it is out of bounds")
    return names[at:end].decode("utf-8", "backslashreplace")
