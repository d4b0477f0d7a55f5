"""What is set for NCCL, by the environment and its files: known names, values within bounds, and devices that are here.

NCCL says nothing of a name that it does not know, and reads a value that is no number as 0.
"""

from __future__ import annotations

import difflib
from typing import NamedTuple

from cwai_bench.checks import DoesNotApply, FactView, Outcome, consistency_check, failed, node_check, passed, warned
from cwai_bench.checks.nccl import NCCL, SCOPE, SETTINGS, in_force_here, look, of_the_job, trouble
from cwai_bench.model import Severity
from cwai_bench.nccl_settings import LOADER, RULES, Setting, chosen, number, read_by_others, unmatched
from cwai_bench.sources import Call, Gid, NcclSettings, Rdma, RdmaDevice, RdmaPort, SteadyNetwork
from cwai_bench.text import Text, plain

NETWORK, RDMA = Call("network"), Call("rdma", timeout=10.0)
NAMED = 8
VALUE_SHOWN = 60
NEAR, TYPING_ERROR = 0.8, 0.92
"""How alike a name must be to be shown; to be taken for the other. Of NCCL's own some are 0.91 alike (P2P_NVL_…,
P2P_NET_CHUNKSIZE); a name with a letter too few is 0.96."""
SOCKETS_MOST = 64
"""NCCL_SOCKET_NTHREADS times NCCL_NSOCKS_PERTHREAD (env.rst; net_socket.cc, MAX_SOCKETS)."""
ETHERNET = "Ethernet"
NOTHING_SET = Text("nothing is set for NCCL here", "本机没有任何 NCCL 设置")


def settings(facts: FactView) -> dict[str, Setting]:
    """As :func:`in_force_here`; raises DoesNotApply where nothing is set."""
    found = in_force_here(facts)
    if not found:
        raise DoesNotApply(NOTHING_SET)
    return found


def written(name: str, setting: Setting) -> str:
    return f"{name}={setting.value[:VALUE_SHOWN]}"


def listed(words: list[str]) -> str:
    return ", ".join(words[:NAMED]) + (f" … ({len(words)})" if len(words) > NAMED else "")


def joined(texts: list[Text]) -> Text:
    return Text("; ".join(t.en for t in texts[:NAMED]), "；".join(t.zh for t in texts[:NAMED]))


@node_check(
    "nccl.files",
    title=Text("Files of NCCL settings are read as they are meant", "NCCL 配置文件按预期生效"),
    method=Text(
        "NCCL_CONF_FILE, else ~/.nccl.conf; /etc/nccl.conf: each line as NCCL reads it",
        "NCCL_CONF_FILE（否则 ~/.nccl.conf）与 /etc/nccl.conf：按 NCCL 的方式逐行读取",
    ),
    criterion=Text(
        "the file that is named is there, and all can be read; a line that NCCL passes over, a name with blanks, a"
        " value in quotes or one for the loader is a warning",
        "指定的文件存在且均可读；被 NCCL 忽略的行、含空格的名称、带引号的值、面向加载器的变量则告警",
    ),
    suggestion=Text(
        "write NAME=VALUE, one a line, without export, blanks and quotes; LD_… comes too late in such a file",
        "每行写 NAME=VALUE，不带 export、空格与引号；LD_… 写在此类文件中不起作用",
    ),
    reads=(SETTINGS,),
    severity=Severity.MAJOR,
    seen="container",
    scope=SCOPE,
)
def files(facts: FactView) -> Outcome:
    told = facts.call(SETTINGS.name, NcclSettings)
    facts.cite(SETTINGS, lambda: "\n".join(f"{f.path} {f.status} {len(f.lines)} lines" for f in told.files) or "-")
    unread = [f for f in told.files if f.status != "ok" and (f.asked or f.status != "missing")]
    if unread:
        return failed(
            listed([f"{f.path} {f.status}" for f in unread]),
            Text("NCCL passes over it in silence", "NCCL 会静默忽略该文件"),
        )
    here = [f for f in told.files if f.status == "ok"]
    if not here:
        raise DoesNotApply(Text("there is no file of settings", "没有配置文件"))
    odd = [f"{f.path}:{line.number}" for f in here for line in f.lines if _odd(line.name, line.value)]
    counted = ", ".join(f"{f.path} {len(f.lines)}" for f in here)
    return warned(listed(odd)) if odd else passed(counted)


def _odd(name: str | None, value: str) -> bool:
    """Whether a line does something else than what it seems to."""
    if name is None or name.split() != [name] or name in LOADER:
        return True
    return value[:1] in ("'", '"') or value != value.strip()


@node_check(
    "nccl.names",
    title=Text("The library knows the variables that are set", "已设置的变量均为集合通信库所识别"),
    method=Text(
        "names that are set, against those that stand in the library that a job loads and in its plugins",
        "已设置的变量名，与作业所加载的库及插件文件中的变量名比较",
    ),
    criterion=Text(
        "each is read by the library, a plugin or a framework; without a library: none is nearly one of NCCL's",
        "均由库、插件或框架读取；没有库时：不与 NCCL 的变量名近似而不同",
    ),
    suggestion=Text(
        "a name that nobody knows does nothing: mend it (the nearest is shown), or take it out; one of another version"
        " does nothing in this one",
        "无人识别的变量不起作用：请更正（给出最接近的名称）或删除；其他版本的变量在此版本中无效",
    ),
    reads=(SETTINGS, NCCL),
    severity=Severity.MINOR,
    seen="container",
    scope=SCOPE,
)
def names(facts: FactView) -> Outcome:
    found = settings(facts)
    told = look(facts)
    job = of_the_job(told)
    known: set[str] = set()
    if job is not None and job.variables:  # one whose constants cannot be read tells no names
        known = {*job.variables, *(name for p in told.plugins for name in p.variables)}
    unknown: dict[str, str] = {}
    for name in found:
        if name in known or read_by_others(name):
            continue
        nearest = sorted({*known, *RULES} - {name})
        close = difflib.get_close_matches(name, nearest, 1, NEAR if known else TYPING_ERROR)
        if known or (close and name not in RULES):
            unknown[name] = close[0] if close else ""
    if not unknown:
        return passed(str(len(found)))
    words = [f"{name[:80]} → {near}" if near else name[:80] for name, near in sorted(unknown.items())]
    by = job.line or job.path if job is not None else "-"
    return warned(
        listed(words), expected=Text("names that {l} knows", "{l} 可识别的变量名").fill(l=by) if known else None
    )


@node_check(
    "nccl.values",
    title=Text("Values of NCCL's variables are such as it accepts", "NCCL 变量取值有效"),
    method=Text(
        "values in force (the environment before the files, as NCCL takes them), against NVIDIA's documentation",
        "实际生效的值（环境变量优先于文件，与 NCCL 一致），与 NVIDIA 文档比较",
    ),
    criterion=Text(
        "numbers are numbers and within bounds (NCCL_IB_QPS_PER_CONNECTION 1..128, NCCL_IB_TIMEOUT 0..31,"
        " NCCL_IB_RETRY_CNT 0..7, NCCL_CROSS_NIC 0..2 …), words are known ones",
        "数值为数字且在范围内（NCCL_IB_QPS_PER_CONNECTION 1..128、NCCL_IB_TIMEOUT 0..31、NCCL_IB_RETRY_CNT 0..7、"
        "NCCL_CROSS_NIC 0..2 等），词语为已知取值",
    ),
    suggestion=Text(
        "mend the value, or take the variable out: NCCL goes on with something else than what was meant",
        "更正取值或删除该变量：否则 NCCL 会使用与预期不同的值",
    ),
    reads=(SETTINGS,),
    severity=Severity.MAJOR,
    seen="container",
    scope=SCOPE,
)
def values(facts: FactView) -> Outcome:
    found = settings(facts)
    wrong: dict[str, Text] = {}
    due: list[str] = []
    for name, rule in RULES.items():
        setting = found.get(name)
        if setting is None or not setting.value:
            continue
        complaint = rule.wrong(setting.value)
        if complaint is not None:
            wrong[written(name, setting)] = complaint
            due.append(f"{name} {rule.due}")
    threads, sockets = (_number(found, name, 1) for name in ("NCCL_SOCKET_NTHREADS", "NCCL_NSOCKS_PERTHREAD"))
    if threads * sockets > SOCKETS_MOST:
        product = "NCCL_SOCKET_NTHREADS × NCCL_NSOCKS_PERTHREAD"
        wrong[f"{product} = {threads * sockets}"] = Text("is more than {m}", "超过 {m}").fill(m=SOCKETS_MOST)
        due.append(f"{product} ≤ {SOCKETS_MOST}")
    if not wrong:
        return passed(str(len(found)))
    told = [Text(f"{what}: {why.en}", f"{what}：{why.zh}") for what, why in wrong.items()]
    return failed(listed(list(wrong)), joined(told), expected=plain(listed(due)))


def _number(found: dict[str, Setting], name: str, default: int) -> int:
    setting = found.get(name)
    return number(setting.value)[0] if setting is not None and setting.value else default


@node_check(
    "nccl.devices",
    title=Text("The devices that NCCL is told to use are here", "NCCL 设置所指的设备存在且被使用"),
    method=Text(
        "NCCL_IB_HCA, NCCL_IB_GID_INDEX, NCCL_IB_DISABLE, NCCL_NET, NCCL_SOCKET_IFNAME, against /sys/class/infiniband"
        " and /sys/class/net",
        "NCCL_IB_HCA、NCCL_IB_GID_INDEX、NCCL_IB_DISABLE、NCCL_NET、NCCL_SOCKET_IFNAME，与 /sys/class/infiniband、"
        "/sys/class/net 比较",
    ),
    criterion=Text(
        "they name devices and interfaces of which one is up (an entry that names none is a warning), the GID is there"
        " (one of RoCE v1 is a warning), and RDMA is not switched off where it works (with a net plugin: a warning)",
        "所指设备与接口至少一个可用（条目无对应设备则告警），GID 存在（RoCE v1 则告警），且未在 RDMA 可用时将其关闭"
        "（使用网络插件时告警）",
    ),
    suggestion=Text(
        "name what ibv_devices and ip link show; leave NCCL_IB_GID_INDEX unset: NCCL 2.21 and newer finds the GID",
        "按 ibv_devices 与 ip link 的输出填写；建议不设 NCCL_IB_GID_INDEX：NCCL 2.21 及以上会自动选择 GID",
    ),
    reads=(SETTINGS, NCCL, NETWORK, RDMA),
    severity=Severity.CRITICAL,
    seen="container",
    scope=SCOPE,
)
def devices(facts: FactView) -> Outcome:
    found = settings(facts)
    complaints = [told for look_at in (_sockets_only, _hca, _gid, _interfaces) for told in look_at(facts, found)]
    if not complaints:
        return passed(", ".join(written(n, found[n]) for n in NAMING if n in found) or "-")
    complaints.sort(key=lambda told: not told.hard)
    observed = listed([f"{told.written} ≠ {listed(told.here) or '-'}" for told in complaints])
    detail = joined([Text(f"{c.written}: {c.why.en}", f"{c.written}：{c.why.zh}") for c in complaints])
    judge = failed if complaints[0].hard else warned
    return judge(observed, detail, expected=joined([told.due for told in complaints]))


NAMING = ("NCCL_IB_DISABLE", "NCCL_NET", "NCCL_IB_HCA", "NCCL_IB_GID_INDEX", "NCCL_SOCKET_IFNAME")
A_DEVICE = Text("devices that are here and active", "存在且可用的设备")
AN_INTERFACE = Text("interfaces that are here and up", "存在且已启用的接口")
A_GID = Text("a GID of RoCE v2 of each device, or unset", "各设备均有的 RoCE v2 GID，或不设置")
RDMA_ON = Text("unset where RDMA works", "RDMA 可用时不设置")


class Complaint(NamedTuple):
    """``here``: what is here in its stead. ``hard``: it is a failure, and no mere warning."""

    hard: bool
    written: str
    here: list[str]
    why: Text
    due: Text


def _ports(facts: FactView) -> list[tuple[RdmaDevice, RdmaPort]]:
    told = facts.call(RDMA.name, Rdma)
    pairs = [(device, port) for device in told.devices for port in device.ports]
    facts.cite(RDMA, lambda: "\n".join(f"{d.name}:{p.port} {p.link_layer} {p.state}" for d, p in pairs) or "-")
    return pairs


def _taken(facts: FactView, found: dict[str, Setting]) -> list[tuple[RdmaDevice, RdmaPort]]:
    """The ports that NCCL would use: those that are active and that NCCL_IB_HCA does not leave out."""
    hca = found.get("NCCL_IB_HCA")
    up = [(d, p) for d, p in _ports(facts) if p.state == "ACTIVE"]
    if hca is None or not hca.value:
        return up
    filter = chosen(hca.value)
    return [(d, p) for d, p in up if filter.takes(d.name, p.port)]


def _sockets_only(facts: FactView, found: dict[str, Setting]) -> list[Complaint]:
    """RDMA is switched off, though it works."""
    socket = "NCCL_NET" in found and found["NCCL_NET"].value.lower() == "socket"
    off = {"NCCL_IB_DISABLE": _number(found, "NCCL_IB_DISABLE", 0) == 1, "NCCL_NET": socket}
    said = [name for name, is_off in off.items() if is_off]
    up = [d.name for d, p in _ports(facts) if p.state == "ACTIVE"] if said else []
    if not up:
        return []
    told = look(facts)
    job = of_the_job(told)
    plugin = not socket and any(p.kind == "net" and trouble(p, job) is None for p in told.plugins)
    why = Text("RDMA is switched off, and {d} works", "RDMA 被关闭，而 {d} 可用").fill(d=listed(up))
    return [Complaint(not plugin, written(name, found[name]), up, why, RDMA_ON) for name in said]


def _hca(facts: FactView, found: dict[str, Setting]) -> list[Complaint]:
    setting = found.get("NCCL_IB_HCA")
    if setting is None or not setting.value:
        return []
    filter, ports = chosen(setting.value), [(d.name, p.port) for d, p in _ports(facts)]
    active = any(p.state == "ACTIVE" for _, p in _ports(facts))
    missing = unmatched(filter, ports)
    hard, why = True, None
    if not ports:  # to leave out what is not here does no harm
        why = None if filter.without else Text("no RDMA device is here", "本机没有 RDMA 设备")
    elif not any(filter.takes(name, port) for name, port in ports):
        why = Text("it leaves no device", "没有任何匹配的设备")
    elif active and not _taken(facts, found):  # where none is up at all, rdma.link says so
        why = Text("no device of these is active", "所选设备均不可用")
    elif missing:
        hard, why = False, Text("{m} names no device", "{m} 不对应任何设备").fill(m=listed(missing))
    if why is None:
        return []
    here = list(dict.fromkeys(name for name, _ in ports))
    return [Complaint(hard, written("NCCL_IB_HCA", setting), here, why, A_DEVICE)]


def _gid(facts: FactView, found: dict[str, Setting]) -> list[Complaint]:
    setting = found.get("NCCL_IB_GID_INDEX")
    index = _number(found, "NCCL_IB_GID_INDEX", -1)
    if setting is None or index < 0:
        return []
    roce = [(d.name, {gid.index: gid for gid in p.gids}) for d, p in _taken(facts, found) if p.link_layer == ETHERNET]
    complaints: list[Complaint] = []
    for hard, why, names in (
        (True, Text("{d} has no such GID", "{d} 没有该 GID"), [name for name, gids in roce if index not in gids]),
        (False, Text("of {d} it is of RoCE v1", "{d} 的该 GID 属于 RoCE v1"), [n for n, g in roce if _is_v1(g, index)]),
    ):
        if names:
            here = [f"{name} {', '.join(map(str, gids)) or '-'}" for name, gids in roce if name in names]
            told = why.fill(d=listed(names))
            complaints.append(Complaint(hard, written("NCCL_IB_GID_INDEX", setting), here, told, A_GID))
    return complaints


def _is_v1(gids: dict[int, Gid], index: int) -> bool:
    return index in gids and gids[index].type == "IB/RoCE v1"


def _interfaces(facts: FactView, found: dict[str, Setting]) -> list[Complaint]:
    setting = found.get("NCCL_SOCKET_IFNAME")
    if setting is None or len(setting.value) < 2:  # as src/misc/socket.cc takes it
        return []
    filter = chosen(setting.value)
    interfaces = facts.call(NETWORK.name, SteadyNetwork).interfaces
    facts.cite(NETWORK, lambda: "\n".join(f"{i.name} {i.operstate}" for i in interfaces) or "-")
    named = [i for i in interfaces if filter.takes(i.name)]
    missing = unmatched(filter, [(i.name, None) for i in interfaces]) if filter.exact else []
    hard, why = True, None
    if not named:
        why = Text("it names no interface", "不对应任何网络接口")
    elif not any(i.admin_up and i.carrier is not False for i in named):
        why = Text("no interface of these is up", "所选接口均未启用")
    elif missing:
        hard, why = False, Text("{m} names no interface", "{m} 不对应任何网络接口").fill(m=listed(missing))
    if why is None:
        return []
    return [Complaint(hard, written("NCCL_SOCKET_IFNAME", setting), [i.name for i in interfaces], why, AN_INTERFACE)]


DISCOURAGED: dict[str, Text] = {
    "NCCL_ALGO": Text("forces the algorithm, for every size and operation", "强制算法，对所有数据量与操作生效"),
    "NCCL_PROTO": Text(
        "forces the protocol: LL128 where it is not supported corrupts data",
        "强制协议：在不支持的平台上启用 LL128 会造成数据错误",
    ),
    "NCCL_LAUNCH_MODE": Text("is out of use since 2.9", "自 2.9 起已废弃"),
    "NCCL_CHECK_POINTERS": Text("is for debugging, and slows every call", "仅用于调试，会拖慢每次调用"),
    "NCCL_CHECKS_DISABLE": Text("is out of use since 2.2.12", "自 2.2.12 起已废弃"),
}
"""Not to be kept in production (env.rst, “Debugging”, and what it says of each)."""


@node_check(
    "nccl.forced",
    title=Text("Nothing is forced on NCCL", "未对 NCCL 强制不当设置"),
    method=Text(
        "NCCL_ALGO, NCCL_PROTO, NCCL_IB_TIMEOUT, NCCL_NET_GDR_LEVEL, NCCL_DEBUG and others of NVIDIA's list for"
        " debugging; CTCCL_IB_RETRY_DISABLE",
        "NCCL_ALGO、NCCL_PROTO、NCCL_IB_TIMEOUT、NCCL_NET_GDR_LEVEL、NCCL_DEBUG 等 NVIDIA 列为调试用途的变量；"
        "CTCCL_IB_RETRY_DISABLE",
    ),
    criterion=Text(
        "none that is for debugging, waits for ever, keeps data off GPUDirect or switches retransmission off is set",
        "没有仅用于调试、无限等待、禁用 GPUDirect 或关闭重传的设置",
    ),
    suggestion=Text(
        "take it out, unless it works round a known fault: NCCL chooses by itself for the topology that it finds",
        "除非用于规避已知问题，否则请删除：NCCL 会按拓扑自行选择",
    ),
    reads=(SETTINGS,),
    severity=Severity.MINOR,
    seen="container",
    scope=SCOPE,
)
def forced(facts: FactView) -> Outcome:
    found = settings(facts)
    odd = {written(name, found[name]): why for name, why in DISCOURAGED.items() if name in found and found[name].value}
    for name, bad, why in (
        ("NCCL_IB_TIMEOUT", lambda v: number(v) == (0, True), Text("waits for ever", "无限等待")),
        ("NCCL_NET_GDR_LEVEL", lambda v: v in ("LOC", "0"), Text("keeps data off GPUDirect", "禁用 GPUDirect")),
        ("NCCL_DEBUG", lambda v: v.upper() == "TRACE", Text("logs every call", "记录每次调用")),
        (
            "CTCCL_IB_RETRY_DISABLE",
            lambda v: number(v)[0] == 1,
            Text("what a fault lost is not sent again", "故障丢失的数据不再重传"),
        ),
    ):
        if name in found and found[name].value and bad(found[name].value):
            odd[written(name, found[name])] = why
    if not odd:
        return passed(str(len(found)))
    told = [Text(f"{what}: {why.en}", f"{what}：{why.zh}") for what, why in odd.items()]
    return warned(listed(list(odd)), joined(told))


LOG_TROUBLE = {
    "missing": Text("its folder is not there (~ is not replaced)", "目录不存在（~ 不会被展开）"),
    "denied": Text("this user may not write into its folder", "当前用户无权写入该目录"),
}


@node_check(
    "nccl.log",
    title=Text("NCCL can write its log", "NCCL 日志可写"),
    method=Text("the folder of NCCL_DEBUG_FILE", "NCCL_DEBUG_FILE 所在目录"),
    criterion=Text(
        "it is there, and can be written; a name without %p, where processes overwrite one another's, is a warning",
        "目录存在且可写；文件名不含 %p（进程间互相覆盖）则告警",
    ),
    suggestion=Text(
        "name a folder that is there on every node: NCCL_DEBUG_FILE=/var/log/nccl.%h.%p",
        "指定各节点均存在的目录：NCCL_DEBUG_FILE=/var/log/nccl.%h.%p",
    ),
    reads=(SETTINGS,),
    severity=Severity.MINOR,
    seen="container",
    scope=SCOPE,
)
def log(facts: FactView) -> Outcome:
    found = in_force_here(facts)
    state = facts.call(SETTINGS.name, NcclSettings).log
    if not state or "NCCL_DEBUG_FILE" not in found:
        raise DoesNotApply(Text("no log file is asked for", "未指定日志文件"))
    what = written("NCCL_DEBUG_FILE", found["NCCL_DEBUG_FILE"])
    if state in LOG_TROUBLE:
        return failed(what, LOG_TROUBLE[state])
    if "%p" not in found["NCCL_DEBUG_FILE"].value:
        return warned(what, Text("processes of a node overwrite one another's", "同节点各进程会互相覆盖"))
    return passed(what)


@consistency_check(
    "same.nccl.settings",
    title=Text("Settings of NCCL", "NCCL 设置"),
    method=Text(
        "values in force, of the environment and of NCCL's files; without NCCL_HOSTID and the log's file",
        "环境变量与 NCCL 配置文件中实际生效的值；不含 NCCL_HOSTID 与日志文件",
    ),
    suggestion=Text(
        "ranks with unlike settings choose unlike algorithms and hang: set the same on all nodes, in /etc/nccl.conf",
        "设置不一致会使各进程选择不同算法而挂起：请统一设置，建议写入 /etc/nccl.conf",
    ),
    reads=(SETTINGS,),
    severity=Severity.MAJOR,
    seen="container",
    scope=SCOPE,
)
def same_settings(facts: FactView) -> str:
    own = {n: s.value for n, s in in_force_here(facts).items() if n not in ("NCCL_HOSTID", "NCCL_DEBUG_FILE")}
    return ", ".join(f"{name}={value}" for name, value in sorted(own.items())) or "-"
