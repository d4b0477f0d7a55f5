"""What is on this machine: addresses, and libraries that could carry bytes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwai_bench.native.door import translated
from cwai_bench.text import Text, joined


@dataclass(frozen=True)
class Address:
    """One address of one network interface. ``prefix`` is in bits; ``up`` means up and with carrier."""

    name: str
    address: str
    prefix: int
    v6: bool
    up: bool
    loopback: bool


def interfaces() -> list[Address]:
    """Every address of every network interface, in the system's order."""
    with translated() as module:
        return [Address(**entry) for entry in module.interfaces()]


@dataclass(frozen=True)
class Backend:
    """What could carry bytes or run a collective: built into this version? loadable? device present?

    ``detail`` says why not, or what is there.
    """

    name: str
    built: bool
    loadable: bool
    present: bool
    detail: Text


def _detail(raw: dict[str, Any]) -> Text:
    parts: list[Text] = []
    if not raw["built"]:
        parts.append(Text("not built in this version", "本版本未内置"))
    if raw["library"] and not raw["loadable"]:
        parts.append(
            Text("{library} cannot be loaded: {why}", "无法加载 {library}：{why}").fill(
                library=raw["library"], why=raw["loader"]
            )
        )
    elif raw["library"]:
        parts.append(Text("{library} loads", "{library} 可加载").fill(library=raw["library"]))
    if raw["devices"]:
        parts.append(Text("devices: {names}", "设备：{names}").fill(names=", ".join(raw["devices"])))
    elif not raw["present"]:
        parts.append(Text("no device", "没有设备"))
    if not parts:
        parts.append(Text("in every build", "始终内置"))
    return joined(parts)


def backends() -> list[Backend]:
    """tcp, loopback, mpi, verbs, cuda, nccl, hccl: what of each is here. Loads libraries, starts none of them."""
    directories = [str(Path(sys.prefix) / "lib")]
    with translated() as module:
        return [
            Backend(raw["name"], raw["built"], raw["loadable"], raw["present"], _detail(raw))
            for raw in module.backends(mpi_directories=directories)
        ]
