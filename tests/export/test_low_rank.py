"""The change of a run of all weights, cut into low-rank factors layer by layer."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fewstep.errors import ConfigError
from fewstep.export.factors import factor_layers
from fewstep.export.formats import Cut, FixedRank, LargestError, LargestSize, chosen_format
from fewstep.export.low_rank import Extraction, extract
from fewstep.export.weights import merge_factors
from fewstep.runs.checkpoint import StoredTensors, stored_tensors
from fewstep.runs.saving import save_checkpoint

# float32 factors of a product of up to 72 terms
ROUNDING = 1e-5


def network(seed: int = 0) -> nn.Sequential:
    """Two linear layers, a convolution, and a norm and biases that take no factors."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(12, 20), nn.LayerNorm(20), nn.Linear(20, 8), nn.Conv2d(4, 6, 3))


def moved(teacher: nn.Module) -> dict[str, Tensor]:
    """What training made of it: some layers more than others, with singular values that fall."""
    generator = torch.Generator().manual_seed(3)
    changed = {}
    for number, (name, value) in enumerate(teacher.named_parameters()):
        change = torch.randn(value.shape, generator=generator)
        if value.ndim > 1:
            change = change.flatten(1) * torch.logspace(0, -3, value[0].numel())
        changed[name] = value.detach() + 0.1 * (1 + number) * change.view(value.shape)
    return changed


Store = Callable[[dict[str, Tensor]], StoredTensors]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    def stored(weights: dict[str, Tensor]) -> StoredTensors:
        return stored_tensors(save_checkpoint(tmp_path, {"ema": weights}, step=1, keep_last=1), "ema")

    return stored


def cut_by(cut: Cut, store: Store, dtype: str = "fp32") -> tuple[Extraction, nn.Module]:
    teacher = network()
    student = store(moved(teacher))
    return extract(teacher, student, factor_layers(teacher), cut, dtype=dtype, device="cpu"), teacher


def merged(extraction: Extraction) -> dict[str, Tensor]:
    teacher = network()
    factors = {name: value.float() for name, value in extraction.factors.items()}
    merge_factors(teacher, factors, scaling=1.0, origin="a test")
    return {name: value.detach() for name, value in teacher.named_parameters()}


def test_factors_of_full_rank_give_every_layer_back(store: Store) -> None:
    extraction, _ = cut_by(FixedRank(1000), store)
    student, found = moved(network()), merged(extraction)
    assert {layer.name: layer.rank for layer in extraction.layers} == {"0": 12, "2": 8, "3": 6}
    for layer in ("0", "2", "3"):
        torch.testing.assert_close(found[f"{layer}.weight"], student[f"{layer}.weight"], rtol=0, atol=ROUNDING)
    assert all(layer.error < ROUNDING for layer in extraction.layers)


def test_the_network_becomes_the_student_weight_by_weight(store: Store) -> None:
    _, became = cut_by(FixedRank(1), store)
    student = moved(network())
    assert all(torch.equal(value, student[name]) for name, value in became.named_parameters())


@pytest.mark.parametrize("cut", [FixedRank(2), LargestError(0.3), LargestSize(0.007)])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_the_error_that_is_told_is_that_of_the_written_factors(cut: Cut, dtype: str, store: Store) -> None:
    extraction, _ = cut_by(cut, store, dtype)
    teacher, student, found = dict(network().named_parameters()), moved(network()), merged(extraction)
    for layer in extraction.layers:
        name = f"{layer.name}.weight"
        change = torch.linalg.vector_norm(student[name] - teacher[name].detach())
        lost = torch.linalg.vector_norm(student[name] - found[name]) / change
        assert (layer.change, layer.error) == pytest.approx((float(change), float(lost)), abs=ROUNDING)
    whole = [torch.linalg.vector_norm(student[name] - value) for name, value in found.items()]
    everything = [torch.linalg.vector_norm(student[name] - value.detach()) for name, value in teacher.items()]
    assert extraction.error == pytest.approx(math.hypot(*whole) / math.hypot(*everything), abs=ROUNDING)


def test_layers_are_told_worst_first(store: Store) -> None:
    extraction, _ = cut_by(FixedRank(3), store)
    errors = [layer.error for layer in extraction.layers]
    assert errors == sorted(errors, reverse=True) and errors[0] > errors[-1]
    assert [str(cell) for cell in extraction.table().columns[0].cells] == [layer.name for layer in extraction.layers]


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_an_error_gets_the_smallest_rank_that_keeps_it(share: float, store: Store) -> None:
    extraction, _ = cut_by(LargestError(share), store)
    shorter = {layer.name: layer.rank - 1 for layer in extraction.layers}
    assert all(layer.error <= share for layer in extraction.layers)
    for name, rank in shorter.items():
        fewer, _ = cut_by(FixedRank(max(rank, 1)), store)
        (error,) = [layer.error for layer in fewer.layers if layer.name == name]
        assert error > share or rank == 0


@pytest.mark.parametrize("kib", [7, 8, 10])
def test_a_size_is_kept_and_used_better_than_by_one_rank(kib: int, store: Store, tmp_path: Path) -> None:
    extraction, _ = cut_by(LargestSize(kib / 1024), store)
    save_file(extraction.factors, tmp_path / "factors.safetensors", metadata={"sigmas": "x" * 200})
    assert (tmp_path / "factors.safetensors").stat().st_size <= kib * 1024

    def numbers(of: Extraction) -> int:
        return sum(value.numel() for value in of.factors.values())

    same = [cut_by(FixedRank(rank), store)[0] for rank in range(1, 13)]
    smaller = [one for one in same if numbers(one) <= numbers(extraction)]
    assert smaller and all(extraction.error <= one.error + ROUNDING for one in smaller)


def test_a_size_that_holds_nothing_is_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"size is 0.001 MiB, which holds no factor: the smallest takes 112 bytes"):
        cut_by(LargestSize(0.001), store)


def test_a_student_that_is_its_teacher_has_no_factors(store: Store) -> None:
    teacher = network()
    student = store({name: value.detach().clone() for name, value in teacher.named_parameters()})
    with pytest.raises(ConfigError, match="Training changed no layer that takes low-rank factors"):
        extract(teacher, student, factor_layers(teacher), FixedRank(2), dtype="fp32", device="cpu")


def test_what_takes_no_factors_is_told(store: Store) -> None:
    extraction, _ = cut_by(FixedRank(1000), store)
    teacher, student = dict(network().named_parameters()), moved(network())
    others = [name for name in teacher if name not in ("0.weight", "2.weight", "3.weight")]
    norm = math.hypot(*(float(torch.linalg.vector_norm(student[name] - teacher[name].detach())) for name in others))
    assert extraction.others == pytest.approx(norm, rel=1e-5)
    assert f"the other weights, which have no factors, hold {norm:.4g} of its norm" in str(extraction)


def test_two_ways_to_choose_the_ranks_are_refused() -> None:
    with pytest.raises(ConfigError, match="rank and size each choose the ranks of the factors; give one of them"):
        chosen_format("lora", rank=4, size=10.0)


def test_a_pipeline_has_no_ranks_to_choose() -> None:
    with pytest.raises(ConfigError, match="--error chooses the ranks of factors, and a pipeline has none"):
        chosen_format("pipeline", error=0.1)
