"""Which file the dynamic loader takes for a name, told without loading anything.

The order is that of ld.so(8): what is loaded already (LD_PRELOAD, by its soname), a name with a slash as it stands,
then the folders of RPATH (of an object without RUNPATH), of LD_LIBRARY_PATH, of RUNPATH, the cache of ldconfig, and the
system's own. A file for another machine is passed over, as the loader does; one that is no library ends the search.
Folders for a newer CPU (glibc-hwcaps) are not looked into.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cwai_bench.discover.tree import Tree
from cwai_bench.readers import Unreadable
from cwai_bench.readers.elf import SharedObject, shared_object
from cwai_bench.readers.loader_cache import loader_cache

CACHE, CACHE_LIMIT = "etc/ld.so.cache", 32 << 20
FOLDERS_LIMIT = 256
"""Folders of a path that are looked into."""


class Found(NamedTuple):
    """``how``: the loader's way to it. ``problem``: why it is not loaded all the same, else ``library`` is there."""

    path: str
    how: str
    library: SharedObject | None
    problem: str = ""


@dataclass
class Loader:
    """The loader of a process with this environment, that sees ``tree`` as its root. ``here``: its working folder."""

    tree: Tree
    environment: Mapping[str, str]
    machine: str
    here: str = "/"
    preloaded: list[Found] = field(default_factory=list)
    unfound: list[str] = field(default_factory=list)
    """Names of LD_PRELOAD that are not to be found; the loader goes on without them."""

    def __post_init__(self) -> None:
        try:
            with self.tree.open_plain(CACHE) as file:
                self.cache = loader_cache(file.read(CACHE_LIMIT), self.machine)
        except (OSError, Unreadable):  # a system without one (musl) has folders only
            self.cache = {}
        for name in re.split(r"[ :]+", self.environment.get("LD_PRELOAD", "")):
            if name:
                found = self.find(name)
                (self.preloaded.append(found) if found is not None else self.unfound.append(name))

    def library_path(self) -> list[str]:
        """The folders of LD_LIBRARY_PATH; an empty one is the working folder."""
        written = self.environment.get("LD_LIBRARY_PATH", "")
        return [folder or self.here for folder in re.split(r"[:;]", written)[:FOLDERS_LIMIT]] if written else []

    def find(self, name: str, by: Found | None = None) -> Found | None:
        """What ``name`` is, asked for by an object that was found before; None where there is nothing of that name."""
        for held in self.preloaded:
            if held.library is not None and name in (held.path, held.library.soname):
                return held._replace(how="LD_PRELOAD")
        if "/" in name:
            return self.look(os.path.join(self.here, name), "path")  # noqa: PTH118
        for path, how in self._places(name, by):
            found = self.look(path, how)
            if found is not None:
                return found
        return None

    def _places(self, name: str, by: Found | None) -> Iterator[tuple[str, str]]:
        asking = None if by is None else by.library
        if by is not None and asking is not None and not asking.runpath:
            yield from ((f"{folder}/{name}", "RPATH") for folder in _told(asking.rpath, by.path))
        yield from ((f"{folder}/{name}", "LD_LIBRARY_PATH") for folder in self.library_path())
        if by is not None and asking is not None:
            yield from ((f"{folder}/{name}", "RUNPATH") for folder in _told(asking.runpath, by.path))
        if name in self.cache:
            yield self.cache[name], "ld.so.cache"
        for folder in (f"/lib/{self.machine}-linux-gnu", f"/usr/lib/{self.machine}-linux-gnu", *_SYSTEM):
            yield f"{folder}/{name}", "system"

    def look(self, path: str, how: str) -> Found | None:
        """The file at ``path`` as the loader takes it: None where it goes on to the next place."""
        path = os.path.normpath(os.path.join(self.here, path))  # noqa: PTH118
        try:
            with self.tree.open_plain(path.lstrip("/")) as file:
                library = shared_object(file)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            return None
        except Unreadable as e:
            return None if "64 bits" in str(e) else Found(path, how, None, str(e))
        except OSError as e:
            return Found(path, how, None, e.strerror or str(e))
        if library.machine != self.machine:
            problem = f"it is for {library.machine}"
            return Found(path, how, None, problem) if how == "path" else None
        return Found(path, how, library)

    def lacks(self, found: Found) -> list[str]:
        """What an object needs and the loader does not find."""
        needed = () if found.library is None else found.library.needed
        return [name for name in needed if self.find(name, found) is None]


_SYSTEM = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")


def _told(folders: tuple[str, ...], path: str) -> list[str]:
    """The folders that an object names: ``$ORIGIN`` is its own; those with other variables are passed over."""
    own = path.rpartition("/")[0]
    filled = [re.sub(r"\$(ORIGIN\b|\{ORIGIN\})", lambda _: own, folder) for folder in folders[:FOLDERS_LIMIT]]
    return [folder for folder in filled if "$" not in folder]
