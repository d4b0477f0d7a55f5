"""What the tests here share: ranks are started by whoever runs them, root too."""

from __future__ import annotations

AS_ROOT = dict.fromkeys(
    (
        "OMPI_ALLOW_RUN_AS_ROOT",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
        "PRTE_ALLOW_RUN_AS_ROOT",
        "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM",
    ),
    "1",
)
"""Variables of Open MPI, for where its options cannot be given: the front starts mpirun itself."""
