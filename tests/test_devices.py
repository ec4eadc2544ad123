import pytest
import torch

from fewstep.devices import choose_device, cpu_threads
from fewstep.errors import ConfigError


def test_a_device_that_is_not_here_is_refused() -> None:
    missing = "cuda" if not torch.cuda.is_available() else "mps"
    with pytest.raises(ConfigError, match=f"parallel.device is {missing}, which PyTorch does not find"):
        choose_device(missing)


@pytest.mark.parametrize("count", [None, 2])
def test_a_number_of_threads_is_given_back(count: int | None) -> None:
    before = torch.get_num_threads()
    with cpu_threads(count):
        assert torch.get_num_threads() == (count or before)
    assert torch.get_num_threads() == before
