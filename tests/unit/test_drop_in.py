"""The lines for a drop-in do what they say: a shell that runs them has the variables, and what was set stays."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from cwai_bench.drop_in import lines

LIBRARY, PLUGIN = "/opt/ctccl/lib/libnccl.so.2", "/opt/cwai/lib/libnccl-net-cwai.so"


def set_by(script: list[str], *names: str, **environment: str) -> list[str]:
    shown = "; ".join(f'printf "%s\\n" "${name}"' for name in names)
    done = subprocess.run(
        ["/bin/sh", "-euc", "\n".join(script) + "\n" + shown],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return done.stdout.splitlines()


def test_a_library_is_preloaded_and_a_plugin_is_named_beside_its_folder() -> None:
    told = lines(LIBRARY, PLUGIN)
    assert told.variables == {
        "LD_PRELOAD": LIBRARY,
        "NCCL_NET_PLUGIN": "cwai",
        "LD_LIBRARY_PATH": "/opt/cwai/lib",
    }
    # The shell itself has nothing preloaded: the file is not there, which its loader would say.
    shell = [line for line in told.shell if "LD_PRELOAD" not in line]
    assert set_by(shell, "NCCL_NET_PLUGIN", "LD_LIBRARY_PATH") == ["cwai", "/opt/cwai/lib"]
    assert set_by(shell, "LD_LIBRARY_PATH", LD_LIBRARY_PATH="/old") == ["/opt/cwai/lib:/old"]
    assert told.shell[0] == f"export LD_PRELOAD={LIBRARY}${{LD_PRELOAD:+:$LD_PRELOAD}}"


def test_each_way_of_starting_hands_all_variables_on() -> None:
    told = lines(LIBRARY, PLUGIN)
    words = shlex.split(" ".join(line.rstrip("\\") for line in told.container))
    assert [words[i + 1] for i, word in enumerate(words) if word == "-e"] == [
        f"{n}={v}" for n, v in told.variables.items()
    ]
    assert [words[i + 1] for i, word in enumerate(words) if word == "-v"] == [
        "/opt/ctccl/lib:/opt/ctccl/lib:ro",
        "/opt/cwai/lib:/opt/cwai/lib:ro",
    ]
    assert all(line.endswith("\\") for line in told.container[:-1])
    assert told.slurm[0] == "#SBATCH --export=ALL"
    assert set(told.shell) <= set(told.slurm)
    assert told.mpirun[-1] == "mpirun -x LD_PRELOAD -x NCCL_NET_PLUGIN -x LD_LIBRARY_PATH COMMAND"


def test_a_plugin_of_another_name_is_named_by_its_path() -> None:
    assert lines(plugin="/opt/x/plugin.so").variables == {"NCCL_NET_PLUGIN": "/opt/x/plugin.so"}


@pytest.mark.parametrize("path", ["/opt/a b/x.so", "/opt/$(reboot)/x.so", "/opt/'q'/x.so"])
def test_a_path_is_quoted_for_the_shell(path: str) -> None:
    told = lines(plugin=path)
    assert set_by(told.shell, "NCCL_NET_PLUGIN") == [path]
    words = shlex.split(" ".join(line.rstrip("\\") for line in told.container))
    assert f"NCCL_NET_PLUGIN={path}" in words
