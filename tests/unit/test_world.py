"""What each launcher says is understood; what it says wrongly is noticed."""

from __future__ import annotations

import pytest

from cwai_bench.launch import world
from cwai_bench.launch.environment import environment
from cwai_bench.launch.front import unresolved


@pytest.mark.parametrize(
    ("env", "rank", "size", "local"),
    [
        ({}, 0, 1, 0),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}, 3, 8, 1),
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1"}, 1, 2, 1),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, 1, 2, None),
        ({"SLURM_PROCID": "5", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "6", "SLURM_LOCALID": "2"}, 5, 6, 2),
        ({"SLURM_PROCID": "0", "SLURM_JOB_ID": "9"}, 0, 1, 0),
    ],
)
def test_launchers(env: dict[str, str], rank: int, size: int, local: int | None) -> None:
    told = world.launched(env)
    assert (told.rank, told.size, told.local_rank) == (rank, size, local)


def test_two_jobs_never_share_a_keeper() -> None:
    one = world.launched({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2", "PMIX_NAMESPACE": "a"})
    two = world.launched({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2", "PMIX_NAMESPACE": "b"})
    assert one.job != two.job
    assert world.launched({}).job != world.launched({}).job


def test_the_environment_is_an_allow_list_and_secrets_are_masked() -> None:
    shown = environment(
        {
            "NCCL_DEBUG": "INFO",
            "NCCL_API_KEY": "hunter2",
            "AWS_SECRET_ACCESS_KEY": "hunter2",
            "HOME": "/root",
            "CWAI_BENCH_FRONT": '{"secret": "hunter2"}',
            "UCX_TLS": "x" * 2000,
        }
    )
    assert shown["NCCL_DEBUG"] == "INFO"
    assert shown["NCCL_API_KEY"] == "***"
    assert "HOME" not in shown
    assert len(shown["UCX_TLS"]) == 512
    assert "hunter2" not in str(shown)


def test_hosts_without_an_address_are_named() -> None:
    assert unresolved(("localhost", "root@localhost", "no-such-host.invalid")) == ["no-such-host.invalid"]
