"""What of the environment goes into a report: an allow-list, with values of secret-looking names masked.

A report is attached to tickets; the whole environment in it would be a leak.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping

_ALLOWED = re.compile(
    r"^(NCCL_|HCCL_|CTCCL_|UCX_|ASCEND_|CUDA_VISIBLE_DEVICES$|CUDA_DEVICE_|NVIDIA_VISIBLE_DEVICES$|OMP_NUM_THREADS$"
    r"|OMPI_MCA_|PRTE_MCA_|MPI4PY_|LD_LIBRARY_PATH$|SLURM_JOB_ID$|SLURM_JOB_NODELIST$|CWAI_BENCH_(?!FRONT|HOSTS))"
)
_LAUNCHER_NOISE = re.compile(
    r"^(OMPI|PRTE)_MCA_(PREFIXES|initial_wdir|num_procs|cpu_type|orte_|ess_|prte_base|pmix)", re.I
)
_SECRET = re.compile(r"key|secret|token|passw|credential", re.I)
MAX_VALUE = 512


def environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Allowed variables by name, and ``python``, ``kernel``, ``machine`` of this process.

    Values are cut to 512 characters.
    """
    env = os.environ if environ is None else environ
    kept = {
        name: "***" if _SECRET.search(name) else value[:MAX_VALUE]
        for name, value in sorted(env.items())
        if _ALLOWED.match(name) and not _LAUNCHER_NOISE.match(name)
    }
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        **kept,
    }
