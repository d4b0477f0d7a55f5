"""Which collective library and which plugins a job started here would load, and what is set for them; or, of a process
that runs (``PROCESS_VARIABLE``), what it has loaded and was started with. Files are read, nothing of them is run.

PyTorch's wheels give libtorch_cuda.so an RPATH to the folder of the wheel nvidia-nccl, so that LD_LIBRARY_PATH does not
count there (pytorch/builder, pull request 1150). How plugins are looked for: NVIDIA/nccl, src/plugin/plugin_open.cc,
net.cc, tuner.cc, profiler.cc, env.cc.
"""

from __future__ import annotations

import errno
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from cwai_bench import collective_library
from cwai_bench.discover import call, packages
from cwai_bench.discover.loader import Found, Loader
from cwai_bench.discover.tree import Tree, bounded, decode, refused
from cwai_bench.model import ReadStatus
from cwai_bench.nccl_settings import (
    PLUGIN_TABLES,
    PLUGINS,
    SYSTEM_FILE,
    USER_FILE,
    VALUE_LIMIT,
    Setting,
    in_force,
    kept,
)
from cwai_bench.readers import Unreadable, elf
from cwai_bench.readers.nccl_conf import nccl_conf
from cwai_bench.readers.process_maps import mapped_files, variables
from cwai_bench.sources import (
    PROCESS_VARIABLE,
    Nccl,
    NcclFile,
    NcclLibrary,
    NcclLine,
    NcclPlugin,
    NcclSettings,
    NcclUse,
)

SONAME = "libnccl.so.2"
TORCH = "torch/lib/libtorch_cuda.so"
COPIES = ("nvidia/nccl/lib/libnccl.so.2", "torch/lib/libnccl.so.2")
"""Where wheels have a library of their own, below a folder of packages."""
PLUGINS_LIMIT = 16
"""NCCL_NET_MAX_PLUGINS of src/include/plugin/nccl_net.h, and then some."""
LIBRARIES_LIMIT, VARIABLES_LIMIT, ENVIRON_LIMIT, MAPS_LIMIT = 32, 2048, 4 << 20, 16 << 20
_VARIABLE = re.compile(rb"\x00((?:NCCL|CTCCL|RCCL|VCCL|OFI_NCCL)_[A-Z0-9_]{2,100})(?=\x00)")
_TABLE = re.compile(rb"\x00(nccl(?:NetPlugin|TunerPlugin|Profiler|EnvPlugin)_v\d{1,3})(?=\x00)")
_LIBRARY = re.compile(r"lib[a-z]{0,8}ccl(?:\.so|-[0-9])[^/]*|libnccl\.so[^/]*")
"""What a mapped file of such a library is called; plugins have a word after a hyphen."""


class _Process(NamedTuple):
    """Whom the questions are about. ``environment``: all of it; it is never handed on as it is."""

    number: int | None
    tree: Tree
    environment: Mapping[str, str]
    here: str
    name: str = ""


def _asked() -> _Process:
    """This process, or the one that was asked for. Raises OSError where that cannot be looked at."""
    number = os.environ.get(PROCESS_VARIABLE, "")
    if not number:
        return _Process(None, Tree(Path("/")), os.environ, os.getcwd())  # noqa: PTH109
    if not re.fullmatch(r"[1-9]\d{0,9}", number):
        raise OSError(errno.EINVAL, f"{PROCESS_VARIABLE} is no number of a process")
    own = Path("/proc") / number
    with (own / "environ").open("rb") as file:
        environment = variables(decode(file.read(ENVIRON_LIMIT)))
    name = decode((own / "comm").read_bytes()).strip()
    return _Process(int(number), Tree(own / "root"), environment, os.readlink(own / "cwd"), name)  # noqa: PTH115


# --------------------------------------------------------------------------------------------------------- settings


@call("nccl_settings")
def nccl_settings() -> NcclSettings:
    process = _asked()
    files = list(_files(process))
    own = {name: value[:VALUE_LIMIT] for name, value in sorted(process.environment.items()) if kept(name)}
    return NcclSettings(own, files, "" if process.number is not None else _log(_settings(process, files), process.here))


def _files(process: _Process) -> Iterator[NcclFile]:
    """The files that NCCL reads, in its order: the user's, which NCCL_CONF_FILE may name, then the system's."""
    named = process.environment.get("NCCL_CONF_FILE", "")
    home = process.environment.get("HOME")
    if named:
        yield _file(process, os.path.join(process.here, named), asked=True)  # noqa: PTH118
    elif home:
        yield _file(process, f"{home}/{USER_FILE}", asked=False)
    yield _file(process, SYSTEM_FILE, asked=False)


def _file(process: _Process, path: str, *, asked: bool) -> NcclFile:
    reading = process.tree.read_path(path.lstrip("/"))
    lines = [
        NcclLine(line.number, line.name, line.value if line.name and kept(line.name) else "")
        for line in (nccl_conf(reading.text) if reading.status == "ok" else [])
    ]
    return NcclFile(path, reading.status, lines, asked, reading.detail)


def _settings(process: _Process, files: Iterable[NcclFile]) -> dict[str, Setting]:
    return in_force(process.environment, ((f.path, ((line.name, line.value) for line in f.lines)) for f in files))


def _log(settings: Mapping[str, Setting], here: str) -> str:
    """Whether the file of NCCL_DEBUG_FILE can be made: it is opened anew by every process."""
    named = settings.get("NCCL_DEBUG_FILE")
    if named is None or not named.value or named.value in ("/dev/stdout", "/dev/stderr"):
        return ""
    folder = Path(here, named.value).parent
    if not folder.is_dir():
        return "missing"
    return "ok" if os.access(folder, os.W_OK | os.X_OK) else "denied"


# ---------------------------------------------------------------------------------------------------------- library


@call("nccl")
def nccl() -> Nccl:
    machine = platform.machine()
    number = os.environ.get(PROCESS_VARIABLE, "")
    try:
        process = _asked()
        maps = None if process.number is None else _maps(process.number)
    except OSError as e:
        if not number:
            raise
        status: ReadStatus = refused("", e).status
        asked = int(number) if number.isascii() and number.isdecimal() else 0
        return Nccl(machine, [], [], [], process=asked, status=status)
    loader = Loader(process.tree, process.environment, machine, process.here)
    looked = _Libraries(process.tree)
    uses = _uses(loader) if maps is None else _loaded(process, maps)
    uses = [msgspec.structs.replace(use, path=looked.take(use.path, whole=True)) if use.path else use for use in uses]
    used = [use.path for use in uses if use.path]
    for path in _named(loader):
        looked.take(path, named=True)
    for path in _copies(loader, packages.folders() if maps is None else {}):
        looked.take(path)
    if maps is None:
        plugins = _plugins(loader, _settings(process, _files(process)), used[0] if used else "")
    else:
        plugins = _loaded_plugins(process, maps)
    for path in [path for path, there in (maps or {}).items() if not there]:
        looked.gone(path)
    return Nccl(machine, uses, looked.found(), plugins, loader.unfound, process.number)


class _Libraries:
    """The files of libraries that were met, each once, whatever links lead to it."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._found: dict[str, NcclLibrary] = {}
        self._paths: dict[tuple[int, int], str] = {}
        """By device and inode: under which path a file was met first."""

    def take(self, path: str, *, whole: bool = False, named: bool = False) -> str:
        """Look at a file; the path that it is kept under, which may be another one's that leads to it. ``whole``: with
        the names that it knows."""
        if path not in self._found and len(self._found) >= LIBRARIES_LIMIT:
            return path
        constants, problem = b"", ""
        try:
            with self._tree.open_plain(path.lstrip("/")) as file:
                told = os.fstat(file.fileno())
                path = self._paths.setdefault((told.st_dev, told.st_ino), path)
                if path not in self._found:
                    constants = elf.constants(file) or b""
        except (OSError, Unreadable) as e:
            problem = (e.strerror if isinstance(e, OSError) else "") or str(e)
        if path not in self._found:
            version = collective_library.of_bytes(constants)
            self._found[path] = NcclLibrary(
                path,
                "" if version is None else str(version),
                named,
                _names(_VARIABLE, constants) if whole else [],
                _names(_TABLE, constants) if whole else [],
                problem,
            )
        elif named:
            self._found[path] = msgspec.structs.replace(self._found[path], named=True)
        return path

    def gone(self, path: str) -> None:
        """The file was replaced or taken away after it was loaded: what stands there now is another."""
        if path in self._found:
            self._found[path] = NcclLibrary(path, problem="the file was replaced after it was loaded")

    def found(self) -> list[NcclLibrary]:
        return list(self._found.values())


def _names(pattern: re.Pattern[bytes], constants: bytes) -> list[str]:
    return sorted({name.decode("ascii") for name in pattern.findall(constants)})[:VARIABLES_LIMIT]


def _uses(loader: Loader) -> list[NcclUse]:
    """Who would load which: each torch, in the order in which a job would meet them, and any other program."""
    found: list[NcclUse] = []
    for folder, prefix in packages.folders().items():
        torch = loader.look(f"{folder}/{TORCH}", "")
        if torch is None:
            continue
        versions = [v for path in sorted(Path(folder).glob("torch-*.dist-info")) if (v := packages.version_of(path))]
        by = f"torch {versions[0] if versions else '?'} ({prefix})"
        if torch.library is None or SONAME not in torch.library.needed:
            found.append(NcclUse(by, "built in", torch.path))
            continue
        library = loader.find(SONAME, torch)
        found.append(NcclUse(by, library.how, library.path) if library else NcclUse(by, "", ""))
    library = loader.find(SONAME)
    if library is not None:
        found.append(NcclUse("program", library.how, library.path))
    return found


def _named(loader: Loader) -> Iterator[str]:
    """The libraries that the environment leads to."""
    yield from (held.path for held in loader.preloaded if held.library and _LIBRARY.fullmatch(held.library.soname))
    places = (f"{folder}/{SONAME}" for folder in loader.library_path())
    yield from (found.path for path in places if (found := loader.look(path, "")) is not None)


def _copies(loader: Loader, folders: Mapping[str, str]) -> Iterator[str]:
    """Where else a library may lie: what wheels and environments bring, and what ldconfig knows."""
    places = [f"{folder}/{name}" for folder in folders for name in COPIES]
    places += [f"{prefix}/lib/{SONAME}" for prefix in dict.fromkeys(folders.values())]
    yield from (found.path for path in places if (found := loader.look(path, "")) is not None)
    if SONAME in loader.cache:
        yield loader.cache[SONAME]


# ---------------------------------------------------------------------------------------------------------- plugins


def _plugins(loader: Loader, settings: Mapping[str, Setting], library: str) -> list[NcclPlugin]:
    """What the library would look for; it asks the loader, so that its own RUNPATH counts."""
    by = loader.look(library, "") if library else None
    found: list[NcclPlugin] = []
    for kind, variable in PLUGINS.items():
        asked = settings.get(variable)
        value = "" if asked is None else asked.value
        if value.lower() == "none":
            continue
        names = [name for name in value.split(",") if name] if kind == "net" else [value] if value else []
        if asked is None or (kind != "net" and not value):
            names = [""]
        found += [_plugin(loader, kind, name[:VALUE_LIMIT], by) for name in names[:PLUGINS_LIMIT]]
    return found


def tried(kind: str, wanted: str) -> list[str]:
    """The names that NCCL gives to the loader, one after the other (plugin_open.cc)."""
    if not wanted:
        return [f"libnccl-{kind}.so"]
    if "/" in wanted or (wanted.startswith("lib") and wanted.endswith(".so")):
        return [wanted]
    return [wanted, f"libnccl-{kind}-{wanted}.so"]


def _plugin(loader: Loader, kind: str, wanted: str, by: Found | None) -> NcclPlugin:
    names = tried(kind, wanted)
    for name in names:
        found = loader.find(name, by)
        if found is not None:
            exports, own = _told_of(loader.tree, kind, found.path) if found.library else ([], [])
            return NcclPlugin(kind, wanted, names, found.path, found.problem, exports, loader.lacks(found), own)
    return NcclPlugin(kind, wanted, names)


def _told_of(tree: Tree, kind: str, path: str) -> tuple[list[str], list[str]]:
    """The tables of a kind that a file exports, and the variables that it asks for."""
    try:
        with tree.open_plain(path.lstrip("/")) as file:
            return elf.exported(file, PLUGIN_TABLES[kind])[:64], _names(_VARIABLE, elf.constants(file) or b"")
    except (OSError, Unreadable):  # the tables of names are damaged: none of them is found, as by the loader
        return [], []


# ------------------------------------------------------------------------------------------------ a process that runs


def _maps(number: int) -> dict[str, bool]:
    """Raises OSError."""
    with (Path("/proc") / str(number) / "maps").open("rb") as file:
        text = bounded("", file.read(MAPS_LIMIT), limit=MAPS_LIMIT).text
    try:
        return mapped_files(text)
    except Unreadable as e:
        raise OSError(errno.EIO, str(e)) from e


def _loaded(process: _Process, maps: Mapping[str, bool]) -> list[NcclUse]:
    by = f"process {process.number} ({process.name[:64]})"
    libraries = [path for path in maps if _LIBRARY.fullmatch(path.rpartition("/")[2])]
    if libraries:
        return [NcclUse(by, "mapped", path) for path in libraries[:LIBRARIES_LIMIT]]
    return [NcclUse(by, "built in", path) for path in maps if path.endswith(f"/{TORCH}")]


def _loaded_plugins(process: _Process, maps: Mapping[str, bool]) -> list[NcclPlugin]:
    found: list[NcclPlugin] = []
    for path in maps:
        name = path.rpartition("/")[2]
        if "nccl" not in name or _LIBRARY.fullmatch(name):
            continue
        for kind in PLUGINS:
            exports, names = _told_of(process.tree, kind, path)
            if exports:
                found.append(NcclPlugin(kind, name, [name], path, exports=exports, variables=names))
    return found[:PLUGINS_LIMIT]
