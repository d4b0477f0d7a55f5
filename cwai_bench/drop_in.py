"""The lines that make a job load another collective library, or a plugin: for a shell, a container and a job script.

``LD_PRELOAD`` reaches a framework that brings a library of its own, which LD_LIBRARY_PATH does not where the framework
has an RPATH (ld.so(8)). A plugin called ``libnccl-net-NAME.so`` is named by NAME, as NCCL takes it since 2.11, beside
the folder that it lies in; one of another name by its path, which newer ones take as well (NVIDIA/nccl,
docs/userguide/source/env.rst, NCCL_NET_PLUGIN).
"""

from __future__ import annotations

import re
import shlex
from typing import NamedTuple

_PLUGIN = re.compile(r"libnccl-net-([A-Za-z0-9_.-]+)\.so")
_ADDED = ("LD_PRELOAD", "LD_LIBRARY_PATH")
"""Variables that hold several: what is there already stays, behind what is added."""


class Lines(NamedTuple):
    """``variables``: what has to be set, whatever starts the job. ``shell``, ``container`` (docker run), ``slurm`` and
    ``mpirun`` (Open MPI): how."""

    variables: dict[str, str]
    shell: list[str]
    container: list[str]
    slurm: list[str]
    mpirun: list[str]


def lines(library: str = "", plugin: str = "") -> Lines:
    """For the library and the net plugin at these paths, either of which may be empty."""
    folder, _, name = plugin.rpartition("/")
    variables: dict[str, str] = {}
    if library:
        variables["LD_PRELOAD"] = library
    if plugin:
        told = _PLUGIN.fullmatch(name)
        variables["NCCL_NET_PLUGIN"] = told[1] if told else plugin
        if told:
            variables["LD_LIBRARY_PATH"] = folder
    shell = [_export(name, value) for name, value in variables.items()]
    folders = dict.fromkeys(path.rpartition("/")[0] for path in (library, plugin) if path)
    volumes = [f"-v {shlex.quote(f'{place}:{place}:ro')}" for place in folders]
    given = [f"-e {shlex.quote(f'{name}={value}')}" for name, value in variables.items()]
    container = ["docker run --gpus all \\", *(f"  {part} \\" for part in (*volumes, *given)), "  IMAGE COMMAND"]
    mpirun = [f"mpirun {' '.join(f'-x {name}' for name in variables)} COMMAND"]
    return Lines(variables, shell, container, ["#SBATCH --export=ALL", *shell, "srun COMMAND"], [*shell, *mpirun])


def _export(name: str, value: str) -> str:
    if name in _ADDED:
        return f"export {name}={shlex.quote(value)}${{{name}:+:${name}}}"
    return f"export {name}={shlex.quote(value)}"
