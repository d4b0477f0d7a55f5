"""What becomes of a result that standard output does not take: it changes no verdict, and it is never silently lost."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO

from cwai_bench.errors import NoVerdictError
from cwai_bench.text import Text


def silence(stream: TextIO) -> None:
    """Nobody reads ``stream`` any more, or it takes no more: what is left in its buffer must not raise at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def unwritten(error: OSError) -> NoVerdictError:
    """The complaint about a standard output that cannot be written. A verdict that nobody was told is none."""
    return NoVerdictError(
        Text("cannot write to standard output: {e}", "无法写入标准输出：{e}").fill(e=error.strerror),
        Text("the run is kept: cwai-bench history show last", "运行记录已保存：cwai-bench history show last"),
    )


def write_json(value: Any) -> None:
    """``value`` on standard output, as a person can read it too."""
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=1).decode() + "\n")


def put(stream: TextIO, text: str) -> NoVerdictError | None:
    """Write ``text`` and flush. A reader that has left is no trouble; anything else that goes wrong is returned."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        silence(stream)
    except OSError as e:
        silence(stream)
        return unwritten(e)
    return None
