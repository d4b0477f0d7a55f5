"""Versions of the Python packages that training is made of, from their metadata: nothing is imported or run.

Looked at are the environment that one is in (``VIRTUAL_ENV``, ``CONDA_PREFIX``), that of the ``python3`` found first on
PATH, those of the system, conda's usual places below /opt, and CANN's own folder.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from cwai_bench.discover import call
from cwai_bench.sources import PythonPackage, PythonPackages

WANTED = re.compile(
    r"torch|torch[_-]npu|mindspore|te|hccl|triton|deepspeed|megatron[_-]core|transformer[_-]engine|flash[_-]attn"
    r"|nvidia[_-]nccl[_-]cu\d{2}",
    re.I,
)
"""``te`` and ``hccl`` come with CANN; ``nvidia-nccl`` is the NCCL that torch loads."""
METADATA = re.compile(r"(?P<name>[A-Za-z0-9._]+?)-[^-]+(?:-[^-]+)?\.(?:dist|egg)-info")
"""A folder of PEP 376 or PEP 427: the name, with its hyphens as underscores, and the version."""
CONDA = ("opt/conda", "opt/miniconda3", "opt/anaconda3", "opt/miniforge3")
CANN = ("usr/local/Ascend/ascend-toolkit/latest/python", "usr/local/Ascend/latest/python")
ROOT = Path("/")
HEAD = 4096
"""Bytes of METADATA that are read: the version stands in its first lines."""
PACKAGES_LIMIT = 256


def _prefixes() -> Iterator[Path]:
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if os.environ.get(name):
            yield Path(os.environ[name])
    python = shutil.which("python3")
    if python is not None:
        here = Path(python).parent.parent
        # In a virtual environment python3 is a link to another one, whose packages are not seen in it.
        yield here if (here / "pyvenv.cfg").exists() else Path(python).resolve().parent.parent
    yield from (ROOT / name for name in ("usr", "usr/local", *CONDA))


def folders() -> dict[str, str]:
    """Folders of packages, to the prefix that they belong to."""
    found: dict[str, str] = {}
    for prefix in _prefixes():
        for pattern in (
            "lib*/python3*/site-packages",
            "lib*/python3*/dist-packages",
            "python3*/lib/python3*/site-packages",
        ):
            for folder in sorted(prefix.glob(pattern)):
                found.setdefault(str(folder.resolve()), str(prefix))
    found |= {str(ROOT / name / "site-packages"): str(ROOT / name) for name in CANN}
    return {folder: prefix for folder, prefix in found.items() if Path(folder).is_dir()}


def version_of(folder: Path) -> str | None:
    """The version that a package's folder of metadata tells, at most 80 characters."""
    for name in ("METADATA", "PKG-INFO"):
        try:
            with (folder / name).open("rb") as file:
                text = file.read(HEAD).decode("utf-8", "backslashreplace")
        except OSError:
            continue
        told = re.search(r"^Version:[ \t]*([\w.!+-]{1,80})[ \t]*$", text, re.M)
        return told[1] if told else None
    return None


@call("python_packages")
def python_packages() -> PythonPackages:
    places = folders()
    found: list[PythonPackage] = []
    for place, prefix in places.items():
        for name in sorted(os.listdir(place)):  # noqa: PTH208
            told = METADATA.fullmatch(name)
            if told is None or not WANTED.fullmatch(told["name"]):
                continue
            version = version_of(Path(place) / name)
            if version is not None:
                found.append(PythonPackage(told["name"].replace("_", "-").lower(), version, prefix))
    return PythonPackages(found[:PACKAGES_LIMIT], sorted(places))
