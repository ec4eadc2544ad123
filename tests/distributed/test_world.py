"""What launchers say about a process."""

import pytest

from fewstep.distributed.world import launched_alone, processes
from fewstep.errors import ConfigError

SRUN = {
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_JOB_ID": "123456",
}


def test_srun_gives_rank_size_and_local_rank() -> None:
    said = processes({**SRUN, "MASTER_ADDR": "node1"})
    assert said == {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "node1",
        "MASTER_PORT": "23456",  # of the job, so that two jobs on one node do not meet
    }


def test_srun_on_one_node_needs_no_address() -> None:
    assert processes({**SRUN, "SLURM_STEP_NUM_NODES": "1"})["MASTER_ADDR"] == "127.0.0.1"


def test_srun_on_several_nodes_without_an_address_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"8 tasks on 2 nodes, but MASTER_ADDR is not set; export it in the job"):
        processes(SRUN)


@pytest.mark.parametrize(
    "environment",
    [{}, {"SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}, {**SRUN, "RANK": "0"}],
    ids=["no launcher", "a batch script without srun", "torchrun inside srun"],
)
def test_nothing_is_read_from_slurm_where_it_did_not_start_the_processes(environment: dict[str, str]) -> None:
    assert processes(environment) == {}


def test_a_process_that_accelerate_started_without_a_rank_is_warned() -> None:
    said = launched_alone({"ACCELERATE_MIXED_PRECISION": "no"})
    assert said is not None and "accelerate launch --multi_gpu" in said


@pytest.mark.parametrize("environment", [{}, {"ACCELERATE_MIXED_PRECISION": "no", "RANK": "0"}])
def test_other_processes_are_not_warned(environment: dict[str, str]) -> None:
    assert launched_alone(environment) is None
