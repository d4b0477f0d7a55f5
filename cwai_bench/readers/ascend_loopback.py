"""What the loopback test of the optical modules prints: each call of hccn_tool, what it said, and its exit code.

    $ hccn_tool -i 0 -optical -t 1
    Cmd executed successfully!
    = 0

The frame is our own (``checks/ascend_loopback.py`` holds the script that writes it), the words between are the tool's.
What they mean is as Huawei's MindCluster takes them (component/ascend-faultdiag, toolkit_src, commit 22bb3d9 of
2026-08: diag_enum.py for the modes, constants.py for the word of success).
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import NamedTuple

from cwai_bench.readers import Unreadable, ascend

_CALL = re.compile(r"\$ hccn_tool -i (\d{1,4}) (-link -g|-optical -t ([012]))")
_CODE = re.compile(r"= (\d{1,3})")
_DONE = "Cmd executed successfully"
_LINES = 20_000
SAID_LIMIT = 200


class Mode(IntEnum):
    """Where a module sends back what it is sent: nowhere, at its electrical side, at its optical side."""

    NONE = 0
    HOST = 1
    MEDIA = 2


class Looped(NamedTuple):
    """One module. ``up``: the link's state before, in each mode that the tool set, and at last with none; ``refused``:
    what the tool said in place of setting a mode."""

    before: bool
    up: dict[Mode, bool]
    refused: dict[Mode, str]


def loopback(text: str) -> dict[str, Looped]:
    """The modules by the number of their NPU. Raises Unreadable, also when a module was not tested to the end."""
    if not text.endswith("\n"):
        raise Unreadable("it ends in the middle of a line")
    found: dict[str, Looped] = {}
    mode: dict[str, Mode | None] = {}
    for card, what, said, code in _calls(text):
        if what is None:
            if code:
                raise Unreadable(f"NPU {card}: -link -g ended with {code}: {said}")
            up = ascend.link(f"{said}\n")
            now = mode.get(card)
            if card not in found:
                found[card] = Looped(up, {}, {})
            elif now is not None:
                found[card].up[now] = up
            continue
        if card not in found:
            raise Unreadable(f"NPU {card}: its link was not asked before")
        done = code == 0 and _DONE in said
        mode[card] = what if done else None
        if not done:
            found[card].refused[what] = said[:SAID_LIMIT] or f"exit code {code}"
    for card, looped in found.items():
        told = looped.up.keys() | looped.refused.keys()
        if told != set(Mode):
            raise Unreadable(f"NPU {card} was not tested to the end")
    if not found:
        raise Unreadable("it holds no result")
    return found


def _calls(text: str) -> list[tuple[str, Mode | None, str, int]]:
    """The number of the NPU, the mode that was to be set (None: the link was asked), the words, the exit code."""
    calls: list[tuple[str, Mode | None, str, int]] = []
    began: re.Match[str] | None = None
    said: list[str] = []
    for line in text.splitlines()[:_LINES]:
        if call := _CALL.fullmatch(line):
            if began is not None:
                raise Unreadable(f"{began[0][2:]} did not end")
            began, said = call, []
        elif began is None:
            raise Unreadable(f"{line[:80]!r} belongs to no call")
        elif code := _CODE.fullmatch(line):
            what = None if began[3] is None else Mode(int(began[3]))
            calls.append((began[1], what, "\n".join(said).strip(), int(code[1])))
            began = None
        else:
            said.append(line)
    if began is not None:
        raise Unreadable(f"{began[0][2:]} did not end")
    return calls
