"""Low-rank factors: attached through peft, equal to the base until they move, exact when merged."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewstep.backbones import create_model_adapter
from fewstep.backbones.anatomy import anatomy
from fewstep.backbones.stock import loads_lora
from fewstep.errors import ConfigError
from fewstep.export import export_student
from fewstep.export.diffusers_folder import student_facts
from fewstep.export.factors import (
    DIFFUSERS_FILE,
    comfyui_targets,
    factor_layers,
    require_comfyui,
    require_loader,
    write_for_comfyui,
    write_for_diffusers,
)
from fewstep.export.weights import merge_factors
from fewstep.testing.case import Case
from fewstep.testing.closeness import additions, assert_rounded_alike, assert_same_bits


class LowRank:
    @pytest.fixture
    def wrapped(self, case: Case) -> Any:
        """The case's network with fresh factors of rank 4 on the adapter's targets."""
        from peft import LoraConfig, get_peft_model

        with torch.random.fork_rng():
            torch.manual_seed(1)
            targets = case.adapter.get_lora_target_modules()
            return get_peft_model(case.adapter.load_network(), LoraConfig(r=4, lora_alpha=4, target_modules=targets))

    def test_what_the_adapter_names_is_in_its_network(self, case: Case) -> None:
        assert anatomy(case.adapter, case.network).problems == ()

    def test_fresh_factors_change_nothing(self, case: Case, wrapped: Any) -> None:
        with wrapped.disable_adapter():
            base = case.velocity(wrapped)
        assert torch.equal(case.velocity(wrapped), base)

    def test_factors_are_all_that_trains_and_sit_on_every_target(self, case: Case, wrapped: Any) -> None:
        expected = {name for target in case.adapter.lora_targets for name in _modules_matching(case.network, target)}
        marker = ".lora_A."
        names = _factors(wrapped)
        found = {name.split(marker)[0].removeprefix("base_model.model.") for name in names if marker in name}
        assert found == expected
        assert all(".lora_A." in name or ".lora_B." in name for name in names)

    def test_merged_factors_give_the_velocity_of_the_attached_ones(self, case: Case, wrapped: Any) -> None:
        attached = case.velocity(_moved(wrapped))
        terms = additions(wrapped)
        merged = case.velocity(wrapped.merge_and_unload())
        assert (attached - case.velocity(case.network)).abs().max() > 1e-3
        # (W + B A) x against W x + B (A x)
        assert_rounded_alike(merged, attached, terms=terms)

    def test_saved_factors_load_exactly(self, case: Case, wrapped: Any, tmp_path: Path) -> None:
        from peft import PeftModel

        _moved(wrapped).save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(case.adapter.load_network(), tmp_path)
        _assert_same_network(case, loaded, wrapped)

    @pytest.mark.parametrize("layout", ["diffusers", "comfyui"])
    def test_written_factors_are_read_by_diffusers_as_they_were(self, layout: str, case: Case, tmp_path: Path) -> None:
        """Those of every layer, or those that ComfyUI has names for, by the pipeline's own loader, at strength 1."""
        adapter, merged = case.adapter, case.adapter.load_network()
        refused = self._refusal(layout, case)
        if refused is not None:
            with pytest.raises(ConfigError, match="--format pipeline"):
                refused()
            return
        factors = _factors_of(factor_layers(merged, comfyui_targets(adapter) if layout == "comfyui" else None))
        merge_factors(merged, factors, scaling=1.0, origin="a test")
        facts = student_facts(adapter, (1.0, 0.5), {}, step="euler")
        file = tmp_path / DIFFUSERS_FILE
        if layout == "comfyui":
            write_for_comfyui(adapter, factors, facts, file, prompt="a red cat", dtype="fp32")
        else:
            write_for_diffusers(adapter, factors, facts, file, dtype="fp32")
        pipeline = adapter.load_pipeline()
        loaded = getattr(pipeline, adapter.network_component)
        if loads_lora(adapter):
            pipeline.load_lora_weights(tmp_path, weight_name=file.name)
        else:
            loaded.load_lora_adapter(tmp_path, prefix=adapter.network_component, weight_name=file.name)
        read = {name: value for name, value in _weights(loaded).items() if ".lora_" in name}
        assert_same_bits(read, factors)
        assert (case.velocity(merged) - case.velocity(case.network)).abs().max() > 1e-3
        # (W + B A) x against W x + B (A x)
        assert_rounded_alike(case.velocity(loaded), case.velocity(merged), terms=additions(loaded))

    def _refusal(self, layout: str, case: Case) -> Callable[[], object] | None:
        """What refuses the export where nothing reads such a file."""
        if getattr(case.network, "load_lora_adapter", None) is None:
            return partial(require_loader, case.network, case.adapter)
        missing = layout == "comfyui" and case.adapter.comfyui is None
        return partial(require_comfyui, case.adapter) if missing else None

    def test_merged_student_survives_its_export_exactly(self, case: Case, wrapped: Any, tmp_path: Path) -> None:
        merged = _moved(wrapped).merge_and_unload()
        done = export_student(case.adapter, merged, tmp_path / "student", levels=(1.0, 0.5))
        exported = create_model_adapter(done.folder, as_teacher=False)
        _assert_same_network(case, exported.load_network(), merged)


def _modules_matching(network: nn.Module, suffix: str) -> list[str]:
    """Names of the modules that a LoRA target means."""
    return [name for name, _ in network.named_modules() if name == suffix or name.endswith(f".{suffix}")]


def _factors(network: nn.Module) -> dict[str, nn.Parameter]:
    """What trains."""
    return {name: value for name, value in network.named_parameters() if value.requires_grad}


def _factors_of(layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Small factors whose ranks differ from layer to layer, as those of an extraction do."""
    generator = torch.Generator().manual_seed(7)
    made = {}
    for number, (layer, weight) in enumerate(layers.items()):
        rank, kernel = 1 + number % 3, weight.shape[2:]
        for letter, shape in (("A", (rank, *weight.shape[1:])), ("B", (len(weight), rank, *[1] * len(kernel)))):
            made[f"{layer}.lora_{letter}.weight"] = 0.1 * torch.randn(shape, generator=generator)
    return made


def _moved(network: Any) -> Any:
    """As after training: no factor is zero any more."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in _factors(network).values():
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
    return network


def _weights(network: nn.Module) -> dict[str, Tensor]:
    """Every weight by its name without the adapter's own, which diffusers chooses when it loads."""
    return {re.sub(r"\.default(_\d+)?\.", ".", name): value for name, value in network.state_dict().items()}


def _assert_same_network(case: Case, loaded: nn.Module, saved: nn.Module) -> None:
    """Equal weights bit by bit, and answers up to rounding: what was loaded is frozen, which is another kernel."""
    assert_same_bits(_weights(loaded), _weights(saved))
    assert_rounded_alike(case.velocity(loaded), case.velocity(saved), terms=additions(saved))
