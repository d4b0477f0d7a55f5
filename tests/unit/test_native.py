"""The door to the compiled module: what comes through it, and how it says no."""

from __future__ import annotations

import ast
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cwai_bench import native
from cwai_bench.errors import CwaiError, DeadlineError, DeviceError, UsageError
from cwai_bench.native import door

ROOT = Path(__file__).resolve().parents[2]
TOKEN = b"t" * native.TOKEN_BYTES


def compiled() -> Any:
    return door.compiled()


@pytest.fixture
def fresh_door(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    door.compiled.cache_clear()
    yield
    monkeypatch.undo()
    door.compiled.cache_clear()


def tcp_ends(lanes: int = 1, spin: bool = False) -> tuple[native.Connection, native.Connection]:
    listener = native.listen(port=0)
    return native.both(
        lambda: native.connect(address="127.0.0.1", port=listener.port, token=TOKEN, lanes=lanes, spin=spin),
        lambda: listener.accept(token=TOKEN, lanes=lanes, spin=spin),
    )


# ------------------------------------------------------------------------------------------- the door


@pytest.mark.usefixtures("fresh_door")
def test_a_missing_module_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import cwai_bench

    monkeypatch.setitem(sys.modules, "cwai_bench._native", None)
    monkeypatch.delattr(cwai_bench, "_native", raising=False)
    with pytest.raises(UsageError) as caught:
        native.clock()
    assert "missing" in caught.value.message.en
    assert caught.value.next_step is not None
    assert "pip install" in caught.value.next_step.en


@pytest.mark.usefixtures("fresh_door")
def test_another_version_is_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ModuleType("cwai_bench._native")
    other.__version__ = "9.8.7"  # type: ignore[attr-defined]
    import cwai_bench

    monkeypatch.setitem(sys.modules, "cwai_bench._native", other)
    monkeypatch.setattr(cwai_bench, "_native", other, raising=False)
    with pytest.raises(UsageError, match=r"9\.8\.7.*" + re.escape(cwai_bench.__version__)):
        native.clock()


def test_the_compiled_version_is_ours() -> None:
    from cwai_bench import __version__

    assert compiled().__version__ == __version__


def test_importing_the_door_loads_nothing_heavy() -> None:
    program = (
        "import sys, cwai_bench.native; "
        "print([m for m in ('cwai_bench._native', 'numpy', 'mpi4py') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_every_fault_has_words_in_both_languages() -> None:
    assert set(door.FAULTS) == set(compiled().fault_names())
    for name, (kind, message, _) in door.FAULTS.items():
        assert issubclass(kind, CwaiError), name
        filled = message.fill(subject="S", why="W")
        assert re.search(r"[\u4e00-\u9fff]", filled.zh), name


def stub_signatures() -> dict[str, list[str]]:
    """Function or Class.method → argument names, as the stub has them."""
    tree = ast.parse((ROOT / "cwai_bench" / "_native.pyi").read_text())
    found: dict[str, list[str]] = {}

    def note(prefix: str, body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef) and not node.decorator_list:
                found[prefix + node.name] = [a.arg for a in node.args.args + node.args.kwonlyargs if a.arg != "self"]
            elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                note(f"{node.name}.", node.body)

    note("", tree.body)
    return found


def documented(function: Any) -> list[str]:
    """Argument names from the signature that pybind11 writes as the first line of the docstring."""
    line = function.__doc__.strip().splitlines()[0]
    inside = line[line.index("(") + 1 : line.rindex(") ->")]
    names = [part.split(":")[0].strip() for part in re.split(r",\s*(?![^\[]*\])", inside) if part.strip()]
    return [n for n in names if n not in ("*", "self")]


def test_the_stub_names_the_arguments_of_the_module() -> None:
    module = compiled()
    stubs = stub_signatures()
    assert len(stubs) > 15
    for name, arguments in stubs.items():
        target: Any = module
        for part in name.split("."):
            target = getattr(target, part)
        assert documented(target) == arguments, name
    public = {n for n in vars(module) if not n.startswith("_") and n != "Error"}
    assert public == {n.split(".")[0] for n in stubs}


# --------------------------------------------------------------------------------------- this machine


def test_crc32c_continues() -> None:
    assert native.crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32/ISCSI
    assert native.crc32c(b"6789", native.crc32c(b"12345")) == 0xE3069283


def test_the_clock_is_fine_and_cheap() -> None:
    quality = native.clock()
    assert 0 < quality["resolution"] < 1e-3
    assert 0 < quality["overhead"] < 1e-4


def test_backends_are_honest() -> None:
    found = {b.name: b for b in native.backends()}
    assert list(found) == ["tcp", "loopback", "mpi", "verbs", "cuda", "nccl", "hccl"]
    assert all((found[n].built, found[n].loadable, found[n].present) == (True, True, True) for n in ("tcp", "loopback"))
    for name in ("verbs", "cuda", "nccl", "hccl"):
        assert found[name].built
        assert "not built in this version" not in found[name].detail.en
        assert found[name].present is not ("no device" in found[name].detail.en)
    assert found["mpi"].built


def test_interfaces_include_the_loopback() -> None:
    found = native.interfaces()
    assert any(a.name == "lo" and a.address == "127.0.0.1" and a.prefix == 8 and a.loopback for a in found)


# -------------------------------------------------------------------------------------- moving bytes


@pytest.mark.parametrize("spin", [False, True])
@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("transport", ["tcp", "loopback"])
def test_bandwidth_and_latency_over_every_transport(transport: str, lanes: int, spin: bool) -> None:
    pair = tcp_ends(lanes, spin) if transport == "tcp" else native.memory_pair(lanes=lanes, spin=spin)
    with pair[0] as a, pair[1] as b:
        assert (a.transport, a.lanes) == (transport, lanes)
        sent, received = native.both(
            lambda: a.bandwidth(size=4096, sends=True, duration=0.2, warmup=0.01, interval=0.02),
            lambda: b.bandwidth(size=4096, receives=True, duration=0.2, warmup=0.01, interval=0.02),
        )
        assert sent.bytes == 0
        assert sent.samples.size == 0
        assert received.bytes == 4096 * received.messages > 0
        assert 0 < received.elapsed < 5
        assert (received.samples > 0).all()
        assert received.samples.dtype == "float64"
        assert (sent.peer_bytes, sent.peer_elapsed) == (received.bytes, received.elapsed)
        assert received.wrong == 0
        asked, answered = native.both(
            lambda: a.latency(initiates=True, iterations=50), lambda: b.latency(initiates=False, iterations=50)
        )
        assert asked.samples.size == 50
        assert (asked.samples > 0).all()
        assert answered.samples.size == 0


def test_wrong_data_is_counted() -> None:
    with_other_seed = {"size": 1000, "duration": 0.0, "messages": 3, "warmup": 0.0}
    a, b = tcp_ends(lanes=2)
    _, received = native.both(
        lambda: a.bandwidth(sends=True, seed=1, **with_other_seed),  # type: ignore[arg-type]
        lambda: b.bandwidth(receives=True, seed=2, **with_other_seed),  # type: ignore[arg-type]
    )
    assert 1900 < received.wrong <= 2000  # of 2000 bytes about one in 256 is right by chance
    assert 0 <= received.first_bad < 10


def test_ends_that_disagree_are_told_in_what() -> None:
    a, b = native.memory_pair()
    with pytest.raises(UsageError, match="differ in: size") as caught:
        native.both(lambda: a.bandwidth(size=64, sends=True), lambda: b.bandwidth(size=65, receives=True))
    assert "不一致" in caught.value.message.zh


def test_a_peer_that_leaves_is_a_device_error_with_its_errno() -> None:
    a, b = tcp_ends()
    b.close()
    with pytest.raises(DeviceError, match="ended the connection") as caught:
        a.latency(initiates=True)
    assert caught.value.errno == 104  # ECONNRESET


def test_a_peer_that_hangs_is_given_up_in_time() -> None:
    a, _silent = tcp_ends()
    start = time.monotonic()
    with pytest.raises(DeadlineError):
        a.latency(initiates=True, timeout=0.2)
    assert time.monotonic() - start < 2


def test_stop_ends_a_run_from_another_thread_and_progress_is_seen_meanwhile() -> None:
    a, b = tcp_ends()
    seen: list[dict[str, str | int]] = []

    def watch() -> None:
        give_up = time.monotonic() + 10
        while time.monotonic() < give_up and native.progress()["phase"] != "timed":
            time.sleep(0.01)
        seen.append(native.progress())
        native.stop()

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.monotonic()
    try:
        with pytest.raises(native.Stopped):
            native.both(
                lambda: a.bandwidth(size=65536, sends=True, duration=20),
                lambda: b.bandwidth(size=65536, receives=True, duration=20),
            )
        watcher.join()
        assert time.monotonic() - start < 12
        with pytest.raises(native.Stopped):  # it stays set
            native.memory_pair()[0].latency(initiates=True)
    finally:
        watcher.join()
        native.clear_stop()
    assert seen[0]["what"] == "bandwidth"
    assert seen[0]["size"] == 65536
    assert native.progress()["phase"] == "idle"


def test_a_connection_carries_one_run_at_a_time() -> None:
    a, _b = tcp_ends()
    failed: list[CwaiError] = []

    def hang() -> None:
        try:
            a.latency(initiates=True, timeout=0.5)
        except CwaiError as error:
            failed.append(error)

    thread = threading.Thread(target=hang)
    thread.start()
    time.sleep(0.15)
    with pytest.raises(UsageError, match="going on"):
        a.latency(initiates=True)
    with pytest.raises(UsageError, match="going on"):
        a.close()
    thread.join()
    assert isinstance(failed[0], DeadlineError)


# -------------------------------------------------------------------------------------------- ports


def test_the_next_port_is_taken_and_told() -> None:
    first = native.listen(port=0)
    second = native.listen(port=first.port)
    assert first.port < second.port < first.port + native.PORT_ATTEMPTS
    with pytest.raises(DeviceError, match="no free port"):
        native.listen(port=first.port, attempts=1)


def test_the_default_port_is_the_field_s() -> None:
    assert native.DEFAULT_PORT == 18515  # perftest's, and the manuals'


def test_a_foreign_address_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"192\.0\.2\.77") as caught:
        native.listen(address="192.0.2.77", port=0)
    assert caught.value.errno == 99  # EADDRNOTAVAIL
    with pytest.raises(DeviceError, match="no-such-host"):
        native.connect(address="no-such-host", port=1, token=TOKEN)


def test_a_closed_port_is_refused_at_once() -> None:
    port = native.listen(port=0).port
    start = time.monotonic()
    with pytest.raises(DeviceError, match="Connection refused"):
        native.connect(address="127.0.0.1", port=port, token=TOKEN, timeout=5)
    assert time.monotonic() - start < 4


def test_strangers_are_dropped_and_the_peer_still_gets_in() -> None:
    listener = native.listen(port=0)
    with socket.create_connection(("127.0.0.1", listener.port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\nHost: a-node-of-the-cluster\r\nAccept: */*\r\n\r\n")

        def call() -> native.Connection:
            with pytest.raises(DeviceError, match="turned our greeting down"):
                native.connect(address="127.0.0.1", port=listener.port, token=b"?" * 32)
            return native.connect(address="127.0.0.1", port=listener.port, token=TOKEN)

        ours, theirs = native.both(call, lambda: listener.accept(token=TOKEN))
    with ours, theirs:
        assert sorted(listener.strangers) == [("127.0.0.1", "magic"), ("127.0.0.1", "token")]


@pytest.mark.parametrize("token", [b"", b"short", b"x" * 33])
def test_a_token_has_its_size(token: bytes) -> None:
    with pytest.raises(UsageError, match="token"):
        native.connect(address="127.0.0.1", port=1, token=token)


# --------------------------------------------------------------------------------------------- C++


def test_the_native_tests_pass() -> None:
    """Builds the core without Python and runs its own tests: transports under deadlines, deaths, corruption."""
    cmake = shutil.which("cmake") or shutil.which("cmake", path=str(Path(sys.executable).parent))
    if cmake is None:
        pytest.skip("no cmake on this machine: apt-get install cmake, or pip install cmake")
    ctest = str(Path(cmake).with_name("ctest"))
    preset = ["--preset", "default"]

    def run(*command: str, seconds: int) -> None:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]

    run(cmake, *preset, seconds=120)
    run(cmake, "--build", *preset, "--parallel", "2", seconds=900)
    run(ctest, *preset, seconds=400)
