"""What a probe sees of the launch: a few ranks that can meet and exchange small values. It knows no launcher."""

from __future__ import annotations

from typing import Any, Protocol


class Group(Protocol):
    """``rank`` of ``size``; ``nodes[r]`` is the node of rank r, ``leaders`` the lowest rank of each node, in order.

    ``comm`` is the mpi4py communicator, or None when one process runs alone; only collective probes look at it.
    """

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def nodes(self) -> tuple[str, ...]: ...
    @property
    def leaders(self) -> tuple[int, ...]: ...
    @property
    def comm(self) -> Any: ...
    def barrier(self) -> None: ...
    def allgather(self, value: Any) -> list[Any]:
        """Every rank's ``value`` (plain JSON-like data), in order of rank, on every rank."""
        ...


class SoloGroup:
    """One process alone."""

    comm = None

    def __init__(self, node: str) -> None:
        self.rank = 0
        self.size = 1
        self.nodes = (node,)
        self.leaders = (0,)

    def barrier(self) -> None:
        return None

    def allgather(self, value: Any) -> list[Any]:
        return [value]
