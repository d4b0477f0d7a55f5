"""The child of ``reader``: a source a line comes in, its readings go out as one line of JSON."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from cwai_bench.discover.reader import READY, read_here
from cwai_bench.discover.tree import Tree
from cwai_bench.sources import Call, File


def main() -> None:
    """Serve until standard input ends. Answers go to a copy of standard output, so that no library can garble them."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    tree = Tree(Path("/"))
    out.write(READY)
    out.flush()
    for line in sys.stdin:
        key = line.rstrip("\n")
        source: File | Call = Call(key.removeprefix("call:")) if key.startswith("call:") else File(key)
        out.write(msgspec.json.encode(read_here(source, tree)) + b"\n")
        out.flush()


if __name__ == "__main__":
    main()
