"""A person's own scripts as items: the ``[script]`` table of a criteria file.

::

    [script]
    site_mount = { file = "check_mount.sh", args = ["/data"], limit = "60 s", nodes = "node[1-8]" }

    [script.burn_in]                     # the item script.burn_in
    file = "burn_in.py"                  # relative to this file; its first line names its interpreter (#!)
    title = "Burn-in"                    # and title_zh, suggestion, suggestion_zh
    severity = "critical"                # critical, major (unless set), minor
    action = "isolate"                   # advice when it fails: fix_config unless set
    limit = "20 min"                     # 600 s unless set; then it is ended, and the verdict is UNKNOWN
    expected = "12 min"                  # what it usually takes, for the plan and --budget
    root = true                          # without privilege it is not run: UNKNOWN
    required = false                     # shown, but neither fails the run nor spoils its verdict
    exit = { warn = [1], fail = [2], unknown = [3], skip = [77], other = "unknown" }     # or exit = "nagios"
    output = { fail = '(?i)^error', skip = 'no such card', pass = '^all good$' }

Exit codes: 0 is PASS and any other FAIL unless set; 126 and 127, by which a shell says that it could not run something,
are UNKNOWN unless set. ``output`` holds regular expressions that are searched for in each line of what the script
writes; ``pass``, when set, is demanded: without such a line 0 is no PASS but UNKNOWN. Of what exit code and output say
the worse counts: FAIL, UNKNOWN, WARN, SKIP, PASS. A script that cannot be run, or that a signal or its time limit
ended, is UNKNOWN; on a node that ``nodes`` does not choose it is SKIP.

The script is run by its node's own kernel and is never evaluated by us. Its text travels with the run, so that the
nodes need not have it. ``cwai_bench/discover/script.py`` says how it is run.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cwai_bench.document import Document, nearest, node_set, quantity
from cwai_bench.errors import UsageError
from cwai_bench.model import Action, CheckInfo, ItemKind, ScriptSpec, Severity, Status
from cwai_bench.text import Text, plain

PREFIX = "script."
LIMIT_SECONDS = 600.0
"""Seconds that a script may take unless its author says otherwise."""
LONGEST_SECONDS = 7 * 86400.0
SCRIPT_SIZE = 1 << 18
"""Bytes: what is larger is no script."""
NAGIOS: dict[int, Status] = {0: Status.PASS, 1: Status.WARN, 2: Status.FAIL, 3: Status.UNKNOWN}
"""OK, WARNING, CRITICAL, UNKNOWN: Monitoring Plugins Development Guidelines, "Plugin Return Codes"
(https://www.monitoring-plugins.org/doc/guidelines.html)."""
SHELL_TROUBLE: dict[int, Status] = {126: Status.UNKNOWN, 127: Status.UNKNOWN}
"""POSIX.1-2017, XCU 2.8.2: 126, found and could not be run; 127, not found."""

FIELDS = (
    "file",
    "args",
    "title",
    "title_zh",
    "suggestion",
    "suggestion_zh",
    "severity",
    "action",
    "limit",
    "expected",
    "nodes",
    "exit",
    "output",
    "root",
    "required",
)
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_STATUSES = {s.value.lower(): s for s in (Status.PASS, Status.WARN, Status.FAIL, Status.UNKNOWN, Status.SKIP)}
_SUGGESTION = Text("see what the script says, in the evidence", "查看证据中脚本的输出")
T = TypeVar("T")


class Script(msgspec.Struct, frozen=True):
    """A script with its text, as it travels to the nodes."""

    spec: ScriptSpec
    text: str


def parse_scripts(document: Document, table: Any) -> dict[str, ScriptSpec]:
    """The scripts of a file's ``[script]`` table, by item, in the file's order; no file is read. Raises UsageError."""
    found: dict[str, ScriptSpec] = {}
    _gather(document, table, [], found)
    return found


def load(specs: Iterable[ScriptSpec], folder: Path) -> list[Script]:
    """The scripts with their texts; ``folder`` is what their files are relative to. Raises UsageError for one that
    could not be run."""
    loaded = []
    for spec in specs:
        text = _text(spec, folder / Path(spec.file).expanduser())
        digest = hashlib.sha256(text.encode()).hexdigest()
        loaded.append(Script(msgspec.structs.replace(spec, digest=digest), text))
    return loaded


def with_limit(spec: ScriptSpec, limit: float) -> ScriptSpec:
    """The script with another time limit, in seconds."""
    info = msgspec.structs.replace(spec.info, method=_method(spec.file, spec.arguments, limit, spec.nodes))
    return msgspec.structs.replace(spec, info=info, limit=limit)


def _method(file: str, arguments: list[str], limit: float, nodes: str) -> Text:
    where = Text(" on {n}", "（{n}）").fill(n=nodes) if nodes else plain("")
    return Text("your own script{w}, {s:g} s at most: {l}", "自定义脚本{w}，最长 {s:g} 秒：{l}").fill(
        w=where, s=limit, l=" ".join([file, *arguments])
    )


def _gather(document: Document, table: Any, path: list[str], found: dict[str, ScriptSpec]) -> None:
    """Collect scripts from nested tables: ``site.mount.file`` is the table site, in it mount, in it file."""
    at = ["script", *path]
    if not isinstance(table, dict):
        expected = Text("expected a table such as {t}, found {v!r}", "应为 {t} 形式的表，实际为 {v!r}")
        raise document.wrong(at, expected.fill(t='{ file = "check.sh" }', v=table))
    if path and _NAME.fullmatch(path[-1]) is None:
        raise document.wrong(
            at, Text("a script is named with letters, digits, _ and -", "脚本名称只能包含字母、数字、_ 与 -")
        )
    if path and ("file" in table or not table or not all(isinstance(value, dict) for value in table.values())):
        found[PREFIX + ".".join(path)] = _spec(document, PREFIX + ".".join(path), table, at)
        return
    for key, inner in table.items():
        _gather(document, inner, [*path, key], found)


def _spec(document: Document, item: str, given: dict[str, Any], at: list[str]) -> ScriptSpec:
    for key in given:
        if key not in FIELDS:
            raise document.wrong([*at, key], Text("there is no such field", "没有这个字段"), nearest(key, FIELDS))
    if "file" not in given:
        raise document.wrong(
            at,
            Text("it lacks {k}", "缺少 {k}").fill(k="file"),
            Text('name the script: file = "check.sh"', '请写明脚本：file = "check.sh"'),
        )

    def one(key: str, kind: type[T], default: T, words: Text) -> T:
        value = given.get(key, default)
        if type(value) is not kind or (isinstance(value, str) and key in given and not value.strip()):
            raise document.wrong(
                [*at, key], Text("expected {w}, found {v!r}", "应为{w}，实际为 {v!r}").fill(w=words, v=value)
            )
        return value

    def words_of(key: str, default: Text) -> Text:
        en = one(key, str, default.en, _TEXT)
        return Text(en, one(f"{key}_zh", str, en if key in given else default.zh, _TEXT))

    def one_of(key: str, values: type[Severity] | type[Action], default: Severity | Action) -> Any:
        known = [v.value for v in values]
        value = given.get(key, default.value)
        if value not in known:
            raise document.wrong(
                [*at, key],
                Text("there is no such value: {v!r}", "没有这个取值：{v!r}").fill(v=value),
                nearest(str(value), known),
            )
        return values(value)

    file = one("file", str, "", _TEXT)
    arguments = _arguments(document, given.get("args", []), [*at, "args"])
    limit = _seconds(document, given.get("limit", LIMIT_SECONDS), [*at, "limit"])
    expected = _seconds(document, given["expected"], [*at, "expected"]) if "expected" in given else 0.0
    nodes = given.get("nodes", "")
    if "nodes" in given:
        node_set(document, nodes, [*at, "nodes"])
    exits, other = _exits(document, given.get("exit", {}), [*at, "exit"])
    output = _output(document, given.get("output", {}), [*at, "output"])
    root = one("root", bool, False, _YES_OR_NO)
    info = CheckInfo(
        item,
        ItemKind.SCRIPT,
        "host",
        words_of("title", plain(item.removeprefix(PREFIX))),
        _method(file, arguments, limit, nodes),
        _criterion(exits, other, output),
        words_of("suggestion", _SUGGESTION),
        one_of("severity", Severity, Severity.MAJOR),
        one_of("action", Action, Action.FIX_CONFIG),
        ["root"] if root else [],
        required=one("required", bool, True, _YES_OR_NO),
    )
    return ScriptSpec(info, file, arguments, limit, sorted(exits.items()), other, output, nodes, expected, root)


_TEXT = Text("some text", "非空文本")
_YES_OR_NO = Text("true or false", " true 或 false")


def _arguments(document: Document, written: Any, at: list[str]) -> list[str]:
    if not isinstance(written, list) or not all(isinstance(word, str) and "\0" not in word for word in written):
        raise document.wrong(
            at, Text('expected a list of words such as ["-v", "/data"]', '应为词的列表，例如 ["-v", "/data"]')
        )
    return list(written)


def _seconds(document: Document, written: Any, at: list[str]) -> float:
    found = quantity(written)
    if found is None or found.unit not in ("s", "1") or not 0 < found.value <= LONGEST_SECONDS:
        raise document.wrong(
            at,
            Text(
                '{v!r} is no time such as "90 s", "10 min" or 600', '{v!r} 不是时长，例如 "90 s"、"10 min" 或 600'
            ).fill(v=written),
            Text("from above 0 to 7 days", "须大于 0 且不超过 7 天"),
        )
    return found.value


def _exits(document: Document, written: Any, at: list[str]) -> tuple[dict[int, Status], Status]:
    """What each exit code means, and all the others."""
    if written == "nagios":
        return SHELL_TROUBLE | NAGIOS, Status.UNKNOWN
    if not isinstance(written, dict):
        raise document.wrong(
            at,
            Text('expected a table, or "nagios"; found {v!r}', '应为表或 "nagios"，实际为 {v!r}').fill(v=written),
            Text("write such as { warn = [1], fail = [2] }", "写法如 { warn = [1], fail = [2] }"),
        )
    named: dict[int, Status] = {}
    other = Status.FAIL
    for key, value in written.items():
        if key == "other":
            other = _status(document, value, [*at, key])
            continue
        status = _status(document, key, [*at, key])
        codes = value if isinstance(value, list) else [value]
        if not codes or not all(type(code) is int and 0 <= code <= 255 for code in codes):
            raise document.wrong(
                [*at, key],
                Text(
                    "expected exit codes (0 to 255) such as [1, 2], found {v!r}",
                    "应为退出码（0 到 255），例如 [1, 2]，实际为 {v!r}",
                ).fill(v=value),
            )
        for code in codes:
            if named.setdefault(code, status) is not status:
                raise document.wrong(
                    [*at, key],
                    Text("exit code {c} already means {s}", "退出码 {c} 已表示 {s}").fill(c=code, s=named[code].value),
                )
    return {0: Status.PASS} | SHELL_TROUBLE | named, other


def _output(document: Document, written: Any, at: list[str]) -> list[tuple[Status, str]]:
    if not isinstance(written, dict):
        raise document.wrong(
            at,
            Text("expected a table, found {v!r}", "应为表，实际为 {v!r}").fill(v=written),
            Text('write such as { fail = "ERROR" }', '写法如 { fail = "ERROR" }'),
        )
    found = []
    for key, pattern in written.items():
        status = _status(document, key, [*at, key])
        try:
            re.compile(pattern)
        except (re.error, TypeError, RecursionError, OverflowError) as e:
            raise document.wrong(
                [*at, key],
                Text("{p!r} is no regular expression: {e}", "{p!r} 不是正则表达式：{e}").fill(p=pattern, e=e),
            ) from e
        found.append((status, str(pattern)))
    return found


def _status(document: Document, written: Any, at: list[str]) -> Status:
    if not isinstance(written, str) or written not in _STATUSES:
        raise document.wrong(
            at,
            Text("there is no such verdict: {v!r}", "没有这种结论：{v!r}").fill(v=written),
            nearest(str(written), _STATUSES),
        )
    return _STATUSES[written]


def _criterion(exits: dict[int, Status], other: Status, output: list[tuple[Status, str]]) -> Text:
    """The rule in words, from the rule itself."""
    codes: dict[Status, list[str]] = {}
    for code, status in sorted(exits.items()):
        if status is not other:
            codes.setdefault(status, []).append(str(code))
    known = ", ".join(f"{'/'.join(found)} {status.value}" for status, found in codes.items())
    words = Text("exit code {k}, any other {o}", "退出码 {k}，其余 {o}").fill(k=known, o=other.value)
    for status, pattern in output:
        demanded = Text(" (demanded)", "（必须出现）") if status is Status.PASS else plain("")
        said = Text("a line matching {p}: {s}{d}", "有匹配 {p} 的行：{s}{d}").fill(
            p=pattern, s=status.value, d=demanded
        )
        words = Text(f"{words.en}; {said.en}", f"{words.zh}；{said.zh}")
    return words


def _text(spec: ScriptSpec, path: Path) -> str:
    """What is in the file of a script. Raises UsageError for what could not be run as one."""

    def wrong(reason: Text, next_step: Text) -> UsageError:
        return UsageError(Text("{i}: {p}: {r}", "{i}：{p}：{r}").fill(i=spec.info.id, p=path, r=reason), next_step)

    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as f:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise wrong(Text("it is not a plain file", "不是普通文件"), _WHERE)
            data = f.read(SCRIPT_SIZE + 1)
    except OSError as e:
        raise wrong(Text("it cannot be read: {e}", "无法读取：{e}").fill(e=e.strerror), _WHERE) from e
    if len(data) > SCRIPT_SIZE:
        raise wrong(
            Text("it is larger than {n} KiB", "超过 {n} KiB").fill(n=SCRIPT_SIZE >> 10),
            Text("put what is large on the nodes, and call it from a script", "请将大文件放到节点上，由脚本调用"),
        )
    first = data.split(b"\n", 1)[0]
    if re.fullmatch(rb"#!\s*/\S.*", first) is None:
        raise wrong(
            Text("its first line names no interpreter", "首行未指定解释器"),
            Text("begin it with a line such as #!/bin/bash", "请以 #!/bin/bash 之类的一行开头"),
        )
    if first.endswith(b"\r"):
        raise wrong(
            Text(
                "it has Windows line ends, and no kernel finds its interpreter",
                "使用了 Windows 换行符，内核无法找到解释器",
            ),
            Text("convert it: sed -i 's/\\r$//' {p}", "请转换：sed -i 's/\\r$//' {p}").fill(p=path),
        )
    try:
        return data.decode()
    except UnicodeDecodeError as e:
        raise wrong(
            Text("it is not UTF-8 text (byte {b})", "不是 UTF-8 文本（第 {b} 字节）").fill(b=e.start),
            Text("save it as UTF-8", "请以 UTF-8 保存"),
        ) from e


_WHERE = Text(
    "correct file: it is relative to the folder of the criteria file", "请更正 file：其路径相对于判据文件所在目录"
)


__all__ = ["Script", "load", "parse_scripts", "with_limit"]
