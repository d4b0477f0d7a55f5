"""What a job would load, told from real shared objects: by the rules of the loader, and without loading any."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cwai_bench.discover import packages
from cwai_bench.discover.loader import Loader
from cwai_bench.discover.nccl import nccl, nccl_settings, tried
from cwai_bench.discover.tree import Tree
from cwai_bench.sources import PROCESS_VARIABLE, NcclUse
from tests.unit.shared_objects import SharedObjects

CTCCL, NCCL = "CTCCL version 0.2.0(nccl 2.19.4)+cuda12.2", "NCCL version 2.21.5+cuda12.4"
RPATH = ("-Wl,--disable-new-dtags", "-Wl,-rpath,$ORIGIN/../../nvidia/nccl/lib")
RUNPATH = ("-Wl,--enable-new-dtags", "-Wl,-rpath,$ORIGIN/../../nvidia/nccl/lib")


@pytest.fixture
def built(tmp_path: Path) -> SharedObjects:
    return SharedObjects(tmp_path)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No library, package or setting of the machine that the test runs on."""
    for name in [name for name in os.environ if name.startswith(("NCCL_", "CTCCL_", "LD_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv(PROCESS_VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(packages, "folders", dict)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages, of the environment ``tmp_path/env``."""
    folder = tmp_path / "env/lib/python3.11/site-packages"
    folder.mkdir(parents=True)
    monkeypatch.setattr(packages, "folders", lambda: {str(folder): str(tmp_path / "env")})
    return folder


def bundled(built: SharedObjects, site: Path, *options: str) -> Path:
    """A torch, and the wheel with its NCCL; the path of the latter."""
    built.torch(site, "2.5.1", *options)
    return built.library(str((site / "nvidia/nccl/lib/libnccl.so.2").relative_to(built.folder)), NCCL, "NCCL_IB_HCA")


def test_a_library_of_the_loaders_path_is_what_a_program_loads(
    built: SharedObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = built.library("ctccl/libnccl.so.2", CTCCL, "CTCCL_IB_RETRY_DISABLE", "NCCL_NET", "ncclNetPlugin_v8")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{path.parent}")
    told = nccl()
    assert told.uses == [NcclUse("program", "LD_LIBRARY_PATH", str(path))]
    (library,) = [one for one in told.libraries if one.path == str(path)]
    assert (library.line, library.named, library.problem) == (CTCCL, True, "")
    assert library.variables == ["CTCCL_IB_RETRY_DISABLE", "NCCL_NET"]
    assert library.tables == ["ncclNetPlugin_v8"]


def test_the_wheel_of_a_framework_with_an_rpath_is_not_replaced_by_the_loaders_path_but_by_a_preload(
    built: SharedObjects, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = bundled(built, site, *RPATH)
    path = built.library("ctccl/libnccl.so.2", CTCCL)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(path.parent))
    torch = f"torch 2.5.1 ({tmp_path / 'env'})"
    assert nccl().uses == [NcclUse(torch, "RPATH", str(wheel)), NcclUse("program", "LD_LIBRARY_PATH", str(path))]
    monkeypatch.setenv("LD_PRELOAD", str(path))
    told = nccl()
    assert told.uses == [NcclUse(torch, "LD_PRELOAD", str(path)), NcclUse("program", "LD_PRELOAD", str(path))]
    assert {library.path: library.line for library in told.libraries} == {str(path): CTCCL, str(wheel): NCCL}


def test_a_runpath_gives_way_to_the_loaders_path(
    built: SharedObjects, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = bundled(built, site, *RUNPATH)
    assert [(use.how, use.path) for use in nccl().uses][:1] == [("RUNPATH", str(wheel))]
    path = built.library("other/libnccl.so.2", CTCCL)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(path.parent))
    assert nccl().uses[0] == NcclUse(nccl().uses[0].by, "LD_LIBRARY_PATH", str(path))


@pytest.mark.parametrize("options", [RPATH, RUNPATH], ids=["RPATH", "RUNPATH"])
@pytest.mark.parametrize("preload", [False, True])
def test_the_loader_of_this_machine_agrees(
    built: SharedObjects, site: Path, tmp_path: Path, options: tuple[str, ...], preload: bool
) -> None:
    """What is told is held against what the real loader maps."""
    wheel = bundled(built, site, *options)
    path = built.library("ctccl/libnccl.so.2", CTCCL)
    environment = {"LD_LIBRARY_PATH": str(path.parent), **({"LD_PRELOAD": str(path)} if preload else {})}
    script = (
        f"import ctypes; ctypes.CDLL({str(site / 'torch/lib/libtorch_cuda.so')!r});"
        "print({line.split()[-1] for line in open('/proc/self/maps') if 'libnccl.so' in line})"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    ).stdout
    loader = Loader(Tree(Path("/")), environment, platform.machine())
    found = loader.find("libnccl.so.2", loader.look(str(site / "torch/lib/libtorch_cuda.so"), ""))
    assert found is not None
    assert said.strip() == repr({found.path})
    assert found.path in (str(wheel), str(path))


def test_a_framework_that_has_it_built_in_or_does_not_find_it_says_so(built: SharedObjects, site: Path) -> None:
    torch = built.torch(site, "2.5.1")
    assert [(use.how, use.path) for use in nccl().uses][:1] == [("", "")]
    torch.unlink()
    built.library(str(torch.relative_to(built.folder)), NCCL, soname="libtorch_cuda.so")
    told = nccl()
    assert (told.uses[0].how, told.uses[0].path) == ("built in", str(torch))
    assert told.libraries[0].line == NCCL


def test_what_is_no_library_ends_the_search_and_another_machines_is_passed_over(
    built: SharedObjects, tmp_path: Path
) -> None:
    good, text, foreign = (tmp_path / name for name in ("good", "text", "foreign"))
    path = built.library("good/libnccl.so.2", NCCL)
    for folder in (text, foreign):
        folder.mkdir()
    data = path.read_bytes()
    (foreign / path.name).write_bytes(data[:18] + b"\xff\x00" + data[20:])
    (text / path.name).write_text("INPUT(libnccl.so.2.21)" + " " * 80)
    here = Tree(Path("/"))
    passed = Loader(here, {"LD_LIBRARY_PATH": f"{foreign}:{good}"}, platform.machine()).find("libnccl.so.2")
    assert passed is not None
    assert passed.path == str(path)
    ended = Loader(here, {"LD_LIBRARY_PATH": f"{text}:{good}"}, platform.machine()).find("libnccl.so.2")
    assert ended is not None
    assert (ended.path, ended.problem) == (str(text / path.name), "it is no ELF file")


def test_a_preload_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/nowhere/libnccl.so.2 libno-such.so")
    assert nccl().preloads == ["/nowhere/libnccl.so.2", "libno-such.so"]


# ---------------------------------------------------------------------------------------------------------- plugins


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("", ["libnccl-net.so"]),
        ("foo", ["foo", "libnccl-net-foo.so"]),
        ("libfoo.so", ["libfoo.so"]),
        ("libfoo", ["libfoo", "libnccl-net-libfoo.so"]),
        ("foo.so", ["foo.so", "libnccl-net-foo.so.so"]),
        ("./foo", ["./foo"]),
    ],
)
def test_names_are_tried_as_the_library_does(wanted: str, names: list[str]) -> None:
    assert tried("net", wanted) == names


def test_plugins_are_found_with_their_tables_and_what_they_lack(
    built: SharedObjects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dependency = built.make("gone/libfabric.so", "int fi;", soname="libfabric.so.1")
    net = built.make("plugins/libnccl-net-cwai.so", "int ncclNetPlugin_v8, ncclNetPlugin_v10, ncclTunerPlugin_v3;")
    built.make("plugins/libnccl-tuner.so", "extern int fi; int *f = &fi; int ncclTunerPlugin_v3;", str(dependency))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "plugins"))
    monkeypatch.setenv("NCCL_NET_PLUGIN", "absent,cwai")
    monkeypatch.setenv("NCCL_PROFILER_PLUGIN", "none")
    (home := tmp_path / "home").mkdir()
    (home / ".nccl.conf").write_text("NCCL_NET_PLUGIN=other\nNCCL_ENV_PLUGIN=env\n")
    told = {(plugin.kind, plugin.wanted): plugin for plugin in nccl().plugins}
    assert set(told) == {("net", "absent"), ("net", "cwai"), ("tuner", ""), ("env", "env")}
    assert told["net", "absent"].path == ""
    assert told["net", "cwai"].path == str(net)
    assert told["net", "cwai"].exports == ["ncclNetPlugin_v10", "ncclNetPlugin_v8"]
    assert told["net", "cwai"].lacks == []
    assert told["tuner", ""].exports == ["ncclTunerPlugin_v3"]
    assert told["tuner", ""].lacks == ["libfabric.so.1"]


# --------------------------------------------------------------------------------------------------------- settings


def test_the_environment_is_an_allow_list_and_files_are_read_in_order(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    monkeypatch.setenv("NCCL_AUTH_TOKEN", "hidden")
    monkeypatch.setenv("API_KEY", "hidden")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.nccl.conf").write_text("# mine\nNCCL_ALGO=Ring\nAPI_KEY=hidden\nno sign\n")
    told = nccl_settings()
    assert told.environment == {"NCCL_DEBUG": "INFO"}
    assert [file.path for file in told.files] == [str(tmp_path / "home/.nccl.conf"), "/etc/nccl.conf"]
    assert [(line.number, line.name, line.value) for line in told.files[0].lines] == [
        (2, "NCCL_ALGO", "Ring"),
        (3, "API_KEY", ""),
        (4, None, ""),
    ]
    assert "hidden" not in repr(told)


def test_a_file_that_is_named_stands_in_place_of_the_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NCCL_CONF_FILE", str(tmp_path / "absent.conf"))
    first = nccl_settings().files[0]
    assert (first.path, first.status, first.asked) == (str(tmp_path / "absent.conf"), "missing", True)


@pytest.mark.parametrize(
    ("named", "state"),
    [("{0}/nccl.%h.%p", "ok"), ("{0}/absent/nccl.%p", "missing"), ("~/nccl.%p", "missing"), ("/dev/stdout", "")],
)
def test_whether_the_log_can_be_made(named: str, state: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NCCL_DEBUG_FILE", named.format(tmp_path))
    assert nccl_settings().log == state


# ------------------------------------------------------------------------------------------------- a process that runs


@pytest.fixture
def job(built: SharedObjects, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has loaded a library and a plugin, and waits."""
    library = built.library("job/libnccl.so.2", CTCCL, "NCCL_IB_HCA", "ncclNetPlugin_v8")
    net = built.make("job/libnccl-net-cwai.so", "int ncclNetPlugin_v8;")
    script = f"import ctypes; [ctypes.CDLL(p) for p in {[str(library), str(net)]!r}]; print('up', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "NCCL_DEBUG": "WARN", "SECRET": "hidden"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
        process.kill()


def test_a_process_tells_what_it_has_loaded_and_was_started_with(
    job: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(PROCESS_VARIABLE, str(job.pid))
    monkeypatch.setenv("NCCL_DEBUG", "TRACE")  # ours, and not that of the process
    told = nccl()
    assert (told.process, told.status) == (job.pid, "ok")
    (use,) = told.uses
    assert use.by.startswith(f"process {job.pid} (")
    assert (use.how, use.path) == ("mapped", str(tmp_path / "job/libnccl.so.2"))
    assert told.libraries[0].line == CTCCL
    (net,) = told.plugins
    assert (net.kind, net.path, net.exports) == ("net", str(tmp_path / "job/libnccl-net-cwai.so"), ["ncclNetPlugin_v8"])
    assert nccl_settings().environment == {"NCCL_DEBUG": "WARN"}


def test_a_file_that_was_replaced_since_is_not_taken_for_what_is_loaded(
    job: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, built: SharedObjects, tmp_path: Path
) -> None:
    monkeypatch.setenv(PROCESS_VARIABLE, str(job.pid))
    (tmp_path / "job/libnccl.so.2").unlink()
    built.library("job/libnccl.so.2", NCCL)
    (library,) = nccl().libraries
    assert (library.line, library.problem) == ("", "the file was replaced after it was loaded")


def test_a_process_that_is_gone_or_has_none_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    monkeypatch.setenv(PROCESS_VARIABLE, str(ended.pid))
    assert (nccl().status, nccl().uses) == ("missing", [])
    with pytest.raises(OSError, match="No such"):
        nccl_settings()
    monkeypatch.setenv(PROCESS_VARIABLE, str(os.getpid()))
    assert nccl().process == os.getpid()
    monkeypatch.setenv(PROCESS_VARIABLE, "../1")
    assert (nccl().status, nccl().process) == ("error", 0)
