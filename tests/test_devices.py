from pathlib import Path

import pytest
import torch

from fewstep.devices import _free_in_groups, choose_device, cpu_multiplies_bf16, cpu_threads, free_memory
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


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="free memory is read where Linux tells it")
def test_free_memory_is_no_more_than_the_machine_has() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < (free_memory(torch.device("cpu")) or 0) <= total


def test_free_memory_of_other_devices_is_not_known() -> None:
    assert free_memory(torch.device("meta")) is None


def test_a_limit_of_any_group_above_counts_without_pages_that_are_given_back(tmp_path: Path) -> None:
    for place, limit in {"": "max", "job": "1000", "job/step": "max"}.items():
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / "memory.max").write_text(f"{limit}\n")
        (tmp_path / place / "memory.current").write_text("700\n")
        (tmp_path / place / "memory.stat").write_text("anon 500\ninactive_file 200\n")
    assert list(_free_in_groups(tmp_path, "/job/step")) == [500]


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, False),
        ({"architecture": "aarch64", "neon": True, "bf16": True}, True),
        ({"architecture": "ppc64le"}, None),
    ],
)
def test_products_in_bf16_are_what_torch_tells_of_the_cpu(
    told: dict[str, object], known: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    assert cpu_multiplies_bf16() is known


def test_an_older_torch_does_not_know_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert cpu_multiplies_bf16() is None
