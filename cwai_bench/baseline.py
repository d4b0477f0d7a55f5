"""A baseline: one node that is as all should be, kept in a file, for runs in which that node is absent.

It holds facts, not conclusions: the values to compare are taken from them by the checks of the day, just as they are
from a baseline node that takes part in the run.

Format history (a reader refuses a version that it does not know):
  1  first
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cwai_bench import __version__
from cwai_bench.checks import CHECKS, ConsistencyCheck, sources_for
from cwai_bench.errors import UsageError
from cwai_bench.model import Facts, Run
from cwai_bench.sources import Each, File
from cwai_bench.text import Text

FORMAT = 1
FILE_LIMIT = 64 << 20


class Baseline(msgspec.Struct, frozen=True, tag="baseline", tag_field="type"):
    """``facts`` hold what the consistency checks need, and nothing else of that node."""

    node: str
    taken: float
    version: str
    facts: Facts
    format: int = FORMAT


def from_facts(facts: Facts) -> Baseline:
    """The baseline that a node makes. Lines of the kernel log and the like stay behind."""
    wanted = sources_for(c.info.id for c in CHECKS.values() if isinstance(c, ConsistencyCheck))
    keys = {source.key for source in wanted}
    for source in wanted:
        listing = facts.readings.get(source.key)
        if (isinstance(source, Each) or (isinstance(source, File) and source.is_glob)) and listing is not None:
            keys.update(listing.text.splitlines())
    kept = {key: reading for key, reading in facts.readings.items() if key in keys}
    return Baseline(facts.node, facts.taken, __version__, msgspec.structs.replace(facts, readings=kept))


def record(run: Run, node: str) -> Baseline:
    """The baseline that ``node`` of ``run`` makes. Raises UsageError when the run has no facts of such a node."""
    for facts in run.facts:
        if facts.node == node:
            return from_facts(facts)
    names = ", ".join(sorted(f.node for f in run.facts)[:20])
    raise UsageError(
        Text("run {r} has no facts of a node {n!r}", "运行 {r} 中没有节点 {n!r} 的数据").fill(r=run.run_id, n=node),
        Text("it has: {l}", "其中有：{l}").fill(l=names) if names else None,
    )


def dump(baseline: Baseline) -> bytes:
    """The file of ``baseline``."""
    return msgspec.json.format(msgspec.json.encode(baseline), indent=1) + b"\n"


def save(path: Path, baseline: Baseline) -> None:
    """Write ``baseline``; a file that is there is replaced whole. Raises UsageError."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_bytes(dump(baseline))
        fresh.replace(path)
    except OSError as e:
        raise UsageError(
            Text("cannot write {p}: {e}", "无法写入 {p}：{e}").fill(p=path, e=e.strerror),
            Text("choose a path that you can write", "请选择可写的路径"),
        ) from e


def parse(data: bytes, name: str = "baseline") -> Baseline:
    """The baseline in the content of a file. ``name`` is what complaints call it. Raises UsageError."""
    step = Text("give a file that cwai-bench saved as a baseline", "请给出由 cwai-bench 保存的基线文件")
    try:
        head = msgspec.json.decode(data, type=_Head)
        if head.type != "baseline":
            raise UsageError(Text("{n} is not a baseline", "{n} 不是基线文件").fill(n=name), step)
        if head.format != FORMAT:
            raise UsageError(
                Text(
                    "{n}: baseline format {f} is not supported (this is {o})", "{n}：不支持基线格式 {f}（当前为 {o}）"
                ).fill(n=name, f=head.format, o=FORMAT),
                Text("use the cwai-bench that wrote it: {v}", "请使用写出它的 cwai-bench：{v}").fill(v=head.version),
            )
        return msgspec.json.decode(data, type=Baseline)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise UsageError(Text("{n} is not a baseline: {e}", "{n} 不是基线文件：{e}").fill(n=name, e=e), step) from e


class _Head(msgspec.Struct):
    type: str = ""
    format: int = 0
    version: str = "?"


def load(path: Path) -> Baseline:
    """The baseline in a file. Raises UsageError."""
    try:
        with path.open("rb") as f:
            data = f.read(FILE_LIMIT + 1)
    except OSError as e:
        raise UsageError(
            Text("cannot read the baseline {p}: {e}", "无法读取基线文件 {p}：{e}").fill(p=path, e=e.strerror),
            Text("check the path and its permissions", "请检查路径与权限"),
        ) from e
    if len(data) > FILE_LIMIT:
        raise UsageError(
            Text("{p} is larger than 64 MiB", "{p} 超过 64 MiB").fill(p=path),
            Text("give a baseline that this tool wrote", "请给出本工具写出的基线文件"),
        )
    return parse(data, str(path))
