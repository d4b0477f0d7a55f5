"""What a fresh machine lacks is named, with the line that installs it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHELL = shutil.which("sh") or "/bin/sh"


def preflight(python: Path | str, path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SHELL, "tools/preflight.sh", str(python)],
        cwd=ROOT,
        env={"PATH": str(path), **env},
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    """A PATH with all that is needed, each a stand-in that succeeds."""
    for name in ("python3", "c++", "make"):
        command(tmp_path, name, "exit 0")
    return tmp_path


def command(folder: Path, name: str, body: str) -> Path:
    path = folder / name
    path.write_text(f"#!{SHELL}\n{body}\n")
    path.chmod(0o755)
    return path


def test_a_complete_machine_is_left_in_peace(complete: Path) -> None:
    done = preflight("python3", complete)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("gone", "package"), [("python3", "python3"), ("c++", "g++"), ("make", "make")])
def test_a_missing_command_is_named_with_its_package(complete: Path, gone: str, package: str) -> None:
    (complete / gone).unlink()
    done = preflight("python3", complete)
    assert done.returncode == 2
    install = next(line for line in done.stderr.splitlines() if "apt-get install" in line)
    assert package in install.split("apt-get install")[1].split()


@pytest.mark.parametrize(
    ("failing", "package"), [("ensurepip", "python3-venv"), ("Python.h", "python3-dev"), ("version_info", "python3")]
)
def test_a_python_that_lacks_a_part_is_named_with_its_package(complete: Path, failing: str, package: str) -> None:
    command(complete, "python3", f'case "$2" in *{failing}*) exit 1 ;; esac')
    done = preflight("python3", complete)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].split("apt-get install")[1].split() == [package]


def test_all_that_is_missing_comes_at_once(tmp_path: Path) -> None:
    done = preflight("python3", tmp_path)
    assert done.returncode == 2
    wanted = set(done.stderr.splitlines()[-1].split("apt-get install")[1].split())
    assert wanted == {"python3", "python3-venv", "python3-dev", "g++", "make"}


def test_a_compiler_of_your_own_will_do(complete: Path) -> None:
    (complete / "c++").unlink()
    mine = command(complete, "my-compiler", "exit 0")
    assert preflight("python3", complete, CXX=str(mine)).returncode == 0


def test_a_compiler_that_is_named_and_missing_is_said(complete: Path) -> None:
    done = preflight("python3", complete, CXX="no-such-compiler")
    assert done.returncode == 2
    assert "no-such-compiler" in done.stderr
