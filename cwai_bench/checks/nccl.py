"""NCCL and what keeps its interface (CTCCL, VCCL): which file a job would load, and which plugins with it.

What a job loads is not what is installed or named last: a framework's own copy is found first where the framework says
so (RPATH), whatever LD_LIBRARY_PATH names. A drop-in that nobody loads does nothing, and says nothing either.
"""

from __future__ import annotations

from collections.abc import Callable

from cwai_bench import collective_library
from cwai_bench.checks import (
    DoesNotApply,
    FactView,
    NotKnown,
    Outcome,
    consistency_check,
    failed,
    node_check,
    passed,
    warned,
)
from cwai_bench.model import Action, ReasonCode, Severity
from cwai_bench.nccl_settings import FAMILIES, PLUGIN_TABLES, Setting, in_force
from cwai_bench.sources import Call, Nccl, NcclLibrary, NcclPlugin, NcclSettings, NcclUse
from cwai_bench.text import Text

NCCL, SETTINGS = Call("nccl", timeout=20.0), Call("nccl_settings")
SCOPE = "nccl"
NAMED = 8
"""Things named in one line."""
BUILT_IN_NETWORKS = ("IB", "SOCKET")


def look(facts: FactView) -> Nccl:
    """What is loaded, or would be. Raises NotKnown of a process that cannot be looked at, or has loaded none."""
    told = facts.call(NCCL.name, Nccl)
    facts.cite(NCCL, lambda: "\n".join(_lines(told)) or "-")
    if told.process is not None and told.status != "ok":
        code: ReasonCode = "permission" if told.status == "denied" else "missing_source"
        reason = (
            Text("process {p} belongs to another user", "进程 {p} 属于其他用户，无权限读取")
            if told.status == "denied"
            else Text("process {p} cannot be looked at: it has ended?", "无法读取进程 {p}，可能已结束")
        )
        raise NotKnown(code, reason.fill(p=told.process))
    if told.process is not None and not told.uses:
        raise NotKnown(
            "missing_source",
            Text(
                "process {p} has loaded no collective library, or not yet", "进程 {p} 未加载（或尚未加载）集合通信库"
            ).fill(p=told.process),
        )
    return told


def in_force_here(facts: FactView) -> dict[str, Setting]:
    """Each variable of the family with the value that counts."""
    told = facts.call(SETTINGS.name, NcclSettings)
    found = in_force(told.environment, [(f.path, [(line.name, line.value) for line in f.lines]) for f in told.files])
    own = {name: setting for name, setting in found.items() if name.startswith(FAMILIES)}
    facts.cite(SETTINGS, lambda: "\n".join(f"{n}={s.value} ({s.origin})" for n, s in sorted(own.items())) or "-")
    return own


def _lines(told: Nccl) -> list[str]:
    by_path = {library.path: library for library in told.libraries}
    lines = [f"{use.by}: {shown(use, by_path.get(use.path))}" for use in told.uses]
    used = {use.path for use in told.uses}
    lines += [f"unused: {lib.path} {lib.line or lib.problem or '-'}" for lib in told.libraries if lib.path not in used]
    lines += [
        f"{p.kind} plugin {p.wanted or '(default)'}: {p.path or 'not found'} {p.problem or ' '.join(p.exports) or '-'}"
        for p in told.plugins
        if p.path or p.wanted
    ]
    return lines + [f"LD_PRELOAD: {name} not found" for name in told.preloads]


def shown(use: NcclUse, library: NcclLibrary | None) -> str:
    """``CTCCL version 0.2.0(nccl 2.19.4)+cuda12.2, /opt/ctccl/lib/libnccl.so.2 (LD_PRELOAD)``."""
    if not use.path:
        return "not found"
    said = "-" if library is None else library.line or library.problem or "-"
    return f"{said}, {use.path} ({use.how})"


def library_of(told: Nccl, use: NcclUse) -> NcclLibrary | None:
    return next((library for library in told.libraries if library.path == use.path), None)


def of_the_job(told: Nccl) -> NcclLibrary | None:
    """The library of the first that loads one: what plugins and variables are held against."""
    return next((library for use in told.uses if use.path and (library := library_of(told, use)) is not None), None)


NONE_HERE = Text("no collective library of NCCL's interface is here", "本机没有 NCCL 或接口兼容的集合通信库")


@node_check(
    "nccl.library",
    title=Text("The collective library that a job loads", "作业将加载的集合通信库"),
    method=Text(
        "libnccl.so.2 as the loader finds it for torch and for any program: LD_PRELOAD, RPATH, LD_LIBRARY_PATH,"
        " RUNPATH, ld.so.cache; its version line, read from the file",
        "按加载器规则查找 torch 及普通程序所用的 libnccl.so.2：LD_PRELOAD、RPATH、LD_LIBRARY_PATH、RUNPATH、"
        "ld.so.cache；从文件中读取版本信息",
    ),
    criterion=Text(
        "it is found, is a library for this machine and tells its version; all of LD_PRELOAD is found",
        "能找到、与本机架构一致并含有版本信息；LD_PRELOAD 中的文件均存在",
    ),
    suggestion=Text(
        "not found: install the wheel nvidia-nccl that torch names, or mend LD_PRELOAD; cwai-bench nccl shows the way",
        "未找到：安装 torch 所需的 nvidia-nccl，或修正 LD_PRELOAD；可用 cwai-bench nccl 查看查找路径",
    ),
    reads=(NCCL,),
    severity=Severity.MAJOR,
    action=Action.FIX_CONFIG,
    seen="container",
    scope=SCOPE,
)
def library(facts: FactView) -> Outcome:
    told = look(facts)
    if told.preloads:
        return failed(
            ", ".join(told.preloads[:NAMED]), Text("LD_PRELOAD names what is not there", "LD_PRELOAD 指定的文件不存在")
        )
    if not told.uses:
        raise DoesNotApply(NONE_HERE)
    for use in told.uses:
        found = library_of(told, use)
        if found is None or found.problem:
            return failed(f"{use.by}: {shown(use, found)}")
    said = "; ".join(f"{use.by}: {shown(use, library_of(told, use))}" for use in told.uses[:NAMED])
    silent = [use for use in told.uses if (found := library_of(told, use)) is not None and not found.line]
    if silent:
        raise NotKnown(
            "parse",
            Text("{p} holds no version line", "{p} 中没有版本信息").fill(p=", ".join(u.path for u in silent[:3])),
        )
    return passed(said)


@node_check(
    "nccl.drop_in",
    title=Text("The library that was asked for is the one that is loaded", "指定的集合通信库确已生效"),
    method=Text(
        "libraries of LD_PRELOAD and LD_LIBRARY_PATH, and any that is no NCCL of NVIDIA's, against what is loaded",
        "LD_PRELOAD、LD_LIBRARY_PATH 中的库，以及其他非 NVIDIA NCCL 的库，与实际加载的库比较",
    ),
    criterion=Text(
        "a library such as CTCCL is loaded by everybody; an NCCL that is named and not loaded is a warning",
        "CTCCL 等替换库须被全部使用者加载；指定的 NCCL 未被加载则告警",
    ),
    suggestion=Text(
        "a framework that brings its own copy does not look at LD_LIBRARY_PATH: export LD_PRELOAD=PATH/libnccl.so.2;"
        " cwai-bench nccl --library PATH prints the lines for a shell, a container and a job script",
        "自带副本的框架不查找 LD_LIBRARY_PATH：请 export LD_PRELOAD=路径/libnccl.so.2；"
        "cwai-bench nccl --library 路径 可打印 shell、容器与作业脚本所需的设置",
    ),
    reads=(NCCL,),
    severity=Severity.MAJOR,
    seen="container",
    scope=SCOPE,
)
def drop_in(facts: FactView) -> Outcome:
    told = look(facts)
    used = {use.path for use in told.uses}
    asked = [lib for lib in told.libraries if is_fork(lib)] or [lib for lib in told.libraries if lib.named]
    if not asked or not told.uses:
        raise DoesNotApply(
            Text("no other library is asked for than what frameworks bring", "未指定替换库，使用框架自带的集合通信库")
        )
    wanted = asked[0]
    missed = [use for use in told.uses if use.path != wanted.path]
    said = f"{wanted.line or '-'}, {wanted.path}"
    if not missed:
        return passed(said)
    others = "; ".join(f"{use.by}: {shown(use, library_of(told, use))}" for use in missed[:NAMED])
    judge: Callable[..., Outcome] = failed if is_fork(wanted) else warned
    none = Text("nobody loads it", "没有任何使用者加载它") if wanted.path not in used else None
    return judge(f"{said} ≠ {others}", none)


def is_fork(library: NcclLibrary) -> bool:
    version = collective_library.of_line(library.line)
    return version is not None and version.name not in ("NCCL", "")


@node_check(
    "nccl.plugins",
    title=Text("Plugins of the collective library can be loaded", "集合通信库插件可加载"),
    method=Text(
        "NCCL_NET_PLUGIN, NCCL_TUNER_PLUGIN, NCCL_PROFILER_PLUGIN, NCCL_ENV_PLUGIN: names as NCCL tries them (NAME,"
        " then libnccl-net-NAME.so), the exported symbols of the file and what it needs",
        "NCCL_NET_PLUGIN、NCCL_TUNER_PLUGIN、NCCL_PROFILER_PLUGIN、NCCL_ENV_PLUGIN：按 NCCL 的顺序查找（NAME，然后"
        " libnccl-net-NAME.so），读取文件的导出符号与依赖",
    ),
    criterion=Text(
        "each that is named is found, fits the machine, has a table of a version that the library knows, and lacks"
        " nothing; one that merely lies there and cannot be used is a warning",
        "指定的插件均存在、与架构一致、导出该库支持版本的接口表且依赖齐全；未指定但存在且不可用的插件则告警",
    ),
    suggestion=Text(
        "NCCL goes on without a plugin that it cannot load, and says so with NCCL_DEBUG=INFO only: mend the path, or"
        " unset the variable",
        "插件无法加载时 NCCL 会静默回退（仅在 NCCL_DEBUG=INFO 时提示）：修正路径，或取消该变量",
    ),
    reads=(NCCL, SETTINGS),
    severity=Severity.MAJOR,
    seen="container",
    scope=SCOPE,
)
def plugins(facts: FactView) -> Outcome:
    told = look(facts)
    wanted = [p for p in told.plugins if p.wanted]
    here = [p for p in told.plugins if p.path or p.wanted]
    if not here and not told.uses:
        raise DoesNotApply(NONE_HERE)
    job = of_the_job(told)
    bad = {p.kind + " " + (p.wanted or p.path): why for p in here if (why := trouble(p, job)) is not None}
    # Of several networks the first that can be used is taken.
    nets = [p for p in wanted if p.kind == "net"]
    observed = "; ".join(named(p) for p in here[:NAMED]) or "-"
    network = in_force_here(facts).get("NCCL_NET")
    foreign = network.value if network is not None and network.value.upper() not in ("", *BUILT_IN_NETWORKS) else ""
    if foreign and not any(p.kind == "net" and trouble(p, job) is None for p in here):
        return failed(
            f"NCCL_NET={foreign[:60]}; {observed}",
            Text("no plugin can be loaded that could be called so", "没有可加载的插件提供该网络"),
        )
    if not bad:
        return passed(observed)
    words = [f"{name[:80]}: {{}}" for name in list(bad)[:NAMED]]
    why_all = list(bad.values())[:NAMED]
    detail = Text(
        "; ".join(w.format(t.en) for w, t in zip(words, why_all, strict=True)),
        "；".join(w.format(t.zh) for w, t in zip(words, why_all, strict=True)),
    )
    several = len(nets) > 1 and any(trouble(p, job) is None for p in nets)
    hard = [p for p in wanted if trouble(p, job) is not None and not (p.kind == "net" and several)]
    return failed(observed, detail) if hard else warned(observed, detail)


def named(plugin: NcclPlugin) -> str:
    """``net cwai: /opt/cwai/libnccl-net-cwai.so (v8, v9)``."""
    told = ", ".join(name.rpartition("_")[2] for name in plugin.exports) or plugin.problem or "-"
    if plugin.lacks:
        told += f"; lacks {', '.join(plugin.lacks[:NAMED])}"
    place = f"{plugin.path} ({told})" if plugin.path else "not found"
    return f"{plugin.kind}{' ' if plugin.wanted else ''}{plugin.wanted[:60]}: {place}"


def trouble(plugin: NcclPlugin, job: NcclLibrary | None) -> Text | None:
    """Why the library could not use a plugin; None where it can."""
    if not plugin.path:
        tried = ", ".join(plugin.tried)
        return Text("not found, tried as {t}", "未找到，已尝试 {t}").fill(t=tried[:160])
    if plugin.problem:
        return Text("cannot be loaded: {p}", "无法加载：{p}").fill(p=plugin.problem)
    start = PLUGIN_TABLES[plugin.kind]
    theirs = [name for name in plugin.exports if name.startswith(start)]
    if not theirs:
        return Text("exports no {s}*", "未导出 {s}*").fill(s=start)
    known = [] if job is None else [name for name in job.tables if name.startswith(start)]
    if known and not set(known) & set(theirs):
        return Text("exports {t}; the library looks for {k}", "导出 {t}，而该库查找 {k}").fill(
            t=", ".join(theirs[:NAMED]), k=", ".join(known[:NAMED])
        )
    if plugin.lacks:
        return Text("needs what is not found: {n}", "缺少依赖：{n}").fill(n=", ".join(plugin.lacks[:NAMED]))
    return None


@consistency_check(
    "same.nccl.library",
    title=Text("Collective library of a job", "作业的集合通信库版本"),
    method=Text("version line of the library that is loaded", "所加载集合通信库的版本信息"),
    suggestion=Text(
        "a communicator refuses to start where versions differ: install the same, or point all nodes at one file",
        "版本不一致时通信域无法建立：统一安装，或让所有节点使用同一文件",
    ),
    reads=(NCCL,),
    severity=Severity.CRITICAL,
    seen="container",
    scope=SCOPE,
)
def same_library(facts: FactView) -> str:
    told = look(facts)
    job = of_the_job(told)
    if job is None:
        raise DoesNotApply(NONE_HERE)
    if not job.line:
        raise NotKnown("cause", Text("it is not known: see item nccl.library", "版本未知，见 nccl.library"))
    return job.line
