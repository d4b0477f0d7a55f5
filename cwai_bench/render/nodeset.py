"""Node sets folded as operators write them: ``node[03,17]``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

# Only names that cannot mean anything else to ClusterShell (groups, ranges, wildcards) are given to it.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")


def fold(nodes: Iterable[str]) -> str:
    """``node[03,17]``; names that are no plain host names follow, one by one, as they are."""
    names = tuple(dict.fromkeys(nodes))
    return _folded(names) if len(names) > 1 else "".join(names)


@lru_cache(maxsize=64)  # most items come out alike on all nodes
def _folded(names: tuple[str, ...]) -> str:
    plain = [name for name in names if _PLAIN.fullmatch(name)]
    odd = [name for name in names if not _PLAIN.fullmatch(name)]
    if len(plain) > 1:
        from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet

        plain = [str(NodeSet.fromlist(plain, resolver=RESOLVER_NOGROUP))]
    return ",".join(plain + odd)


@lru_cache(maxsize=1 << 16)  # the same nodes are sorted for every item
def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key by which node9 comes before node10."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part)
