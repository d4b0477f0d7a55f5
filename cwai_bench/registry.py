"""How a new check, probe or format makes itself known: one file in its room, one decorator in it.

A room is a package; ``load`` imports its modules once, and each registers what it holds.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Named things of one room, in order of registration. A second thing of the same name is a bug and is refused."""

    def __init__(self, room: str) -> None:
        self.room = room
        self._entries: dict[str, T] = {}
        self._loaded = False

    def add(self, name: str, entry: T) -> T:
        if name in self._entries:
            raise ValueError(f"{self.room}: {name!r} is registered twice")
        self._entries[name] = entry
        return entry

    def load(self) -> Registry[T]:
        """Import every module of the room, in order of name. Cheap when done before."""
        if not self._loaded:
            self._loaded = True
            package = importlib.import_module(self.room)
            for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
                importlib.import_module(f"{self.room}.{module.name}")
        return self

    def __getitem__(self, name: str) -> T:
        return self.load()._entries[name]

    def __contains__(self, name: str) -> bool:
        return name in self.load()._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.load()._entries)

    def __len__(self) -> int:
        return len(self.load()._entries)

    def values(self) -> list[T]:
        return list(self.load()._entries.values())
