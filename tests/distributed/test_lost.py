"""Whose error it was: another process's end, or this process's own."""

import pytest
import torch

from fewstep.distributed.lost import LostProcessError, explain_lost_processes
from fewstep.errors import CheckpointError


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:1: Connection reset by peer"),
        torch.distributed.DistBackendError("NCCL communicator was aborted on rank 0."),
    ],
)
def test_a_failed_exchange_is_the_end_of_another_process(error: RuntimeError) -> None:
    with pytest.raises(LostProcessError, match="Process 1 is gone without a word"), explain_lost_processes(0, 2):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("shape '[3]' is invalid for input of size 4"),
        CheckpointError("The connection to the disk timed out."),
        ValueError("a connection"),
    ],
)
def test_an_error_of_its_own_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explain_lost_processes(0, 2):
        raise error
    assert caught.value is error
