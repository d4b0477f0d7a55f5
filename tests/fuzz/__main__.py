"""``make fuzz``: coverage-guided fuzzing of all readers of foreign text, each for a while (``SECONDS=``, ``TARGETS=``).

An input that breaks a reader is kept below tests/fixtures/fuzz, where plain pytest tries it again from then on. Ends
with 1 when there was one.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import subprocess
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / ".cache" / "fuzz"
LONGEST = 1 << 16
"""Bytes of an input: longer ones are tried by tests/unit/test_fuzz_regressions.py, one by one."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--targets", default="", help="only these, separated by commas")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        import atheris
    except ImportError:
        print(
            "make fuzz needs atheris, which has wheels for Linux on x86_64 and CPython 3.10 to 3.13 only; this is"
            f" {sys.implementation.name} {sys.version.split()[0]} on {sys.platform}",
            file=sys.stderr,
        )
        return 2
    if args.one:
        return _fuzz(atheris, args.one, args.seconds)
    from tests.fuzz.targets import TARGETS

    wanted = args.targets.split(",") if args.targets else list(TARGETS)
    unknown = set(wanted) - set(TARGETS)
    if unknown:
        parser.error(f"--targets: {', '.join(sorted(unknown))}: there are {', '.join(TARGETS)}")
    broken = []
    for name in wanted:
        command = [sys.executable, "-m", "tests.fuzz", "--one", name, "--seconds", str(args.seconds)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
        tried = [line for line in done.stderr.splitlines() if "DONE" in line or "Done " in line]
        print(f"{name}: {tried[-1].strip() if tried else f'ended with {done.returncode}'}", flush=True)
        if done.returncode != 0:
            broken.append(name)
            print(done.stdout[-4000:], done.stderr[-4000:], sep="\n")
    if broken:
        print(f"broken: {', '.join(broken)}; the inputs are in tests/fixtures/fuzz")
    return 1 if broken else 0


def _fuzz(atheris: Any, name: str, seconds: int) -> int:
    from tests.fuzz.targets import FOUND, TARGETS, timed

    # Modules of an editable installation come from a finder of its own, past atheris.instrument_imports.
    for function in gc.get_objects():
        if isinstance(function, FunctionType) and (function.__module__ or "").startswith("cwai_bench."):
            atheris.instrument_func(function)
    target = TARGETS[name]
    corpus, found = CORPUS / name, FOUND / name
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed[:LONGEST])
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        "-timeout=20",
        "-rss_limit_mb=2048",
        f"-artifact_prefix={found}/",
        "-print_final_stats=1",
    ]
    atheris.Setup([name, *options, str(corpus)], lambda data: timed(target, data))
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
