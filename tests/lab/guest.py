"""A guest with a kernel of its own: the distribution's stock kernel, which has soft-RoCE, emulated by qemu.

The guest runs on this machine's own files, read-only over virtio-9p, so what it runs is the very virtual environment of
the tests; ``/tmp``, ``/var/tmp``, ``/run`` and ``/dev/shm`` are its own. One boot, one command::

    done = guest.run(["ibv_devices"], tmp_path / "guest", modules=["rdma_rxe"])

``KernelPanic`` and ``GuestDied`` are never mistaken for a command that failed: that has a result with its exit code.
Emulation is slow: compare ratios, never absolute figures.
"""

from __future__ import annotations

import gzip
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KERNEL = ROOT / ".cache" / "guest"
VENV = Path(sys.prefix)
BOOT_MODULES = ("virtio_pci", "9pnet_virtio", "9p")
BOOTED = "guest: the command starts"

# First process of the initramfs: brings up the shared root, then hands over to START on it.
# $SHARED: folders that must stay visible though they may lie under /tmp or /var/tmp, which the guest has for itself.
INIT = r"""#!/bin/busybox sh
set -e
/bin/busybox mkdir -p /proc /sys /dev /new /hold
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do insmod "/modules/$module"; done </modules/order
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro hostroot /new
i=0
for folder in $SHARED; do i=$((i + 1)); mkdir /hold/$i; mount -o bind "/new$folder" /hold/$i; done
for own in tmp var/tmp run; do mount -t tmpfs tmpfs /new/$own; done
i=0
for folder in $SHARED; do i=$((i + 1)); mkdir -p "/new$folder"; mount -o bind /hold/$i "/new$folder"; done
mkdir /new/run/exchange
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none exchange /new/run/exchange
mount -o move /proc /new/proc
mount -o move /sys /new/sys
mount -o move /dev /new/dev
exec switch_root /new /bin/sh /run/exchange/start
"""

# The first process on the shared root: what a distribution's init would have done, then the command, then the end.
# The exit code is written last and under its final name at once, so a file that is there is whole.
START = r"""
chmod 1777 /tmp /var/tmp
mkdir -p /tmp/home /run/bin /run/lock /dev/shm /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
printf '#!/bin/sh\nexec /sbin/modprobe -d %s "$@"\n' "$KERNEL" >/run/bin/modprobe
chmod 755 /run/bin/modprobe
echo /run/bin/modprobe >/proc/sys/kernel/modprobe
ip link set lo up
hostname guest
echo "$BOOTED" >/dev/console
cd /tmp
/bin/sh -e /run/exchange/command >/run/exchange/output 2>/run/exchange/errors </dev/null
echo $? >/run/exchange/.exit_code
mv /run/exchange/.exit_code /run/exchange/exit_code
sync
echo b >/proc/sysrq-trigger
sleep 60
"""


class GuestDied(AssertionError):
    """The guest ended, or ran out of time, without a result; carries the end of its console."""


class KernelPanic(GuestDied):
    """Its kernel panicked. Soft-RoCE of Linux 6.1 does that now and then, and it says nothing about the command."""


def run(
    argv: Sequence[str | Path],
    folder: Path,
    *,
    modules: Sequence[str] = (),
    deadline: float = 120.0,
    memory_mib: int = 2048,
    counted: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Boot a guest, load ``modules``, run ``argv`` as its root, and give back exit code, output and errors.

    ``folder`` holds consoles and exchanged files, one sub-folder per boot, and the guest sees it under the same path;
    it may write into ``/run/exchange``, which is ``exchange`` in the sub-folder of this boot. A kernel panic is tried
    once more; KernelPanic is raised after a second one, GuestDied when a boot with all in it took ``deadline`` seconds.

    ``counted``: the guest has one CPU and its clock counts the instructions of that, eight nanoseconds each, so that
    what it measures does not depend on what else the host does; idle time is skipped. Without, it has two CPUs and the
    host's clock.
    """
    script = "".join(f"modprobe {shlex.quote(module)}\n" for module in modules) + shlex.join(map(str, argv)) + "\n"
    try:
        return _boot(script, folder / "boot1", deadline, memory_mib, counted)
    except KernelPanic as first:
        print(f"the guest's kernel panicked; booting once more\n{first}")
        return _boot(script, folder / "boot2", deadline, memory_mib, counted)


COUNTED = ("-accel", "tcg,thread=single", "-icount", "shift=3,sleep=off", "-smp", "1")
FREE = ("-accel", "tcg,thread=multi", "-smp", "2")


def _boot(
    script: str, folder: Path, deadline: float, memory_mib: int, counted: bool
) -> subprocess.CompletedProcess[str]:
    exchange = folder / "exchange"
    exchange.mkdir(parents=True)
    console = folder / "console.log"
    environment = f"PATH=/run/bin:{VENV}/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp/home LANG=C.UTF-8"
    (exchange / "command").write_text(f"export {environment} PYTHONDONTWRITEBYTECODE=1\n{script}")
    variables = f"KERNEL={shlex.quote(str(KERNEL))} BOOTED={shlex.quote(BOOTED)}\nexport {environment}\n"
    (exchange / "start").write_text(variables + START)
    initramfs = _initramfs(folder)
    qemu = subprocess.Popen(
        [
            *("setpriv", "--pdeathsig", "KILL"),
            *("qemu-system-x86_64", "-machine", "q35", "-cpu", "max", *(COUNTED if counted else FREE)),
            *("-m", str(memory_mib), "-nographic", "-nodefaults", "-no-reboot", "-nic", "none"),
            *("-serial", f"file:{console}"),
            *("-kernel", KERNEL / "vmlinuz", "-initrd", initramfs),
            *("-append", "console=ttyS0 panic=-1 quiet loglevel=4 oops=panic"),
            *("-virtfs", "local,path=/,security_model=none,mount_tag=hostroot,readonly=on,multidevs=remap"),
            *("-virtfs", f"local,path={exchange},security_model=none,mount_tag=exchange,multidevs=remap"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = qemu.communicate(timeout=deadline)
        timed_out = False
    except subprocess.TimeoutExpired:
        timed_out = True
        qemu.kill()
        said, _ = qemu.communicate()
    shown = console.read_text(errors="replace") if console.exists() else ""
    out, err = (_text(exchange / name) for name in ("output", "errors"))
    code = exchange / "exit_code"
    if code.exists():
        return subprocess.CompletedProcess(["guest"], int(code.read_text()), out, err)
    tail = f"console:\n{shown[-4000:]}\nqemu: {said}\noutput:\n{out[-2000:]}\nerrors:\n{err[-2000:]}"
    if "Kernel panic" in shown:
        raise KernelPanic(tail)
    how = f"no result within {deadline:.0f} s" if timed_out else "it ended without a result"
    raise GuestDied(f"{how}, {'after' if BOOTED in shown else 'before'} the command had started\n{tail}")


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _initramfs(folder: Path) -> Path:
    """Busybox, and the modules without which the shared root cannot be seen, in the order in which they load."""
    tree = folder / "initramfs"
    (tree / "bin").mkdir(parents=True)
    (tree / "modules").mkdir()
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, tree / "bin" / "busybox")
    order = []
    for path in _module_files():
        order.append(path.name.removesuffix(".zst"))
        if path.suffix == ".zst":
            subprocess.run(["zstd", "-dqf", path, "-o", tree / "modules" / order[-1]], check=True, timeout=30)
        else:
            shutil.copy(path, tree / "modules")
    (tree / "modules" / "order").write_text("\n".join(order) + "\n")
    init = tree / "init"
    init.write_text(INIT.replace("$SHARED", f"{ROOT} {folder.parent}"))
    init.chmod(0o755)
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    packed = subprocess.run(
        ["cpio", "--create", "--format=newc", "--quiet", "--owner=0:0"],
        input=names.encode(),
        cwd=tree,
        stdout=subprocess.PIPE,
        check=True,
        timeout=30,
    )
    target = folder / "initramfs.gz"
    target.write_bytes(gzip.compress(packed.stdout, compresslevel=1))
    return target


def _module_files() -> list[Path]:
    release = (KERNEL / "release").read_text().strip()
    found: list[Path] = []
    for module in BOOT_MODULES:
        listing = subprocess.run(
            ["/sbin/modprobe", "--dirname", KERNEL, "--set-version", release, "--show-depends", module],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        for line in listing.stdout.splitlines():  # "insmod PATH [options]", or "builtin NAME"
            verb, _, rest = line.partition(" ")
            path = Path(rest.split()[0])
            if verb == "insmod" and path not in found:
                found.append(path)
    return found
