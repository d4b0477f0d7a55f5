"""``/etc/ld.so.cache``, by which the loader finds a library by its name: what ``ldconfig -p`` prints.

Format: glibc, sysdeps/generic/dl-cache.h (since 2.2; the older format in front of it, which some systems still write
for old programs, is passed over).
"""

from __future__ import annotations

import struct

from cwai_bench.readers import Unreadable

NEW, OLD = b"glibc-ld.so.cache1.1", b"ld.so-1.7.0\0"
ENTRIES_LIMIT = 1 << 17
PATH_LIMIT = 4096
ABI = {"x86_64": 0x0300, "aarch64": 0x0A00, "ppc64le": 0x0500, "riscv64": 0x1000, "loongarch64": 0x1200}
"""The flags of libraries for a machine, beside 3, which says libc6 (dl-cache.h, FLAG_…)."""
LIBC6, KIND, REQUIRED = 3, 0x00FF, 0xFF00


def loader_cache(data: bytes, machine: str) -> dict[str, str]:
    """The path of each library for ``machine`` (as uname tells it), by name. Raises Unreadable."""
    start = 0
    if data.startswith(OLD):
        if len(data) < 16:
            raise Unreadable("the cache is cut short")
        (count,) = struct.unpack_from("<I", data, 12)
        start = (16 + 12 * min(count, ENTRIES_LIMIT) + 7) & ~7
    if data[start : start + len(NEW)] != NEW:
        raise Unreadable("it is no cache of glibc's loader")
    if len(data) < start + 48:
        raise Unreadable("the cache is cut short")
    (count,) = struct.unpack_from("<I", data, start + 20)
    if count > ENTRIES_LIMIT or len(data) < start + 48 + 24 * count:
        raise Unreadable("the cache is cut short")
    found: dict[str, str] = {}
    for flags, key, value, _, hardware in struct.iter_unpack("<iIIIQ", data[start + 48 : start + 48 + 24 * count]):
        fits = flags & KIND == LIBC6 and flags & REQUIRED == ABI.get(machine, 0)
        if fits and not hardware:  # builds for a newer CPU stand in folders of their own
            found.setdefault(_text(data, start + key), _text(data, start + value))
    return found


def _text(data: bytes, at: int) -> str:
    end = data.find(b"\0", at, at + PATH_LIMIT)
    if end < 0:
        raise Unreadable("a name of the cache is out of bounds")
    return data[at:end].decode("utf-8", "backslashreplace")
