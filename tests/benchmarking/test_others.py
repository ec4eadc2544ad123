"""The counts of other methods add up, and agree with ours where the method is the same."""

from dataclasses import replace

import pytest
from benchmarks.others import OTHERS, OURS, SDXL_ENCODER, sources_table, units_table
from benchmarks.training import best_ratio
from torch.utils.flop_counter import FlopCounterMode

from fewstep.config import load_recipe
from fewstep.planning.cost import units_by_part
from fewstep.planning.meta_networks import planned_adapter, prompts_without_values

BY_NAME = {one.name: one for one in OTHERS}


@pytest.mark.parametrize(
    ("name", "plain", "as_published"),
    [
        # five simulations of 1.5 forwards, four more without gradient, 5 x 3, 3, 2 + 1, and 32 encoders
        ("DMD2", 7.5 + 4 + 15 + 3 + 3 + 32 * SDXL_ENCODER, None),
        ("CDM, its authors' code", 50.0, 55.0),
        ("D-DMD, as that code runs it", 8 + 6 + 6 + 4, 28.0),
        # 2 x 5 and 4 forwards, 2 x 3, 2 x 3, guided and plain teacher, fake score twice
        ("CDM of LightX2V", 14 + 6 + 6 + 5, 35.0),
        ("TDM", 5 + 3 + 3 + 4, 17.0),
        # 2.5 and 1.5, a guided fake score, and four answers that the gradient goes through
        ("SiD-DiT", 4 + 6 + 3 + 8, 26.0),
        ("SenseFlow", 7.5 + 10 + 30 + 3 + 5, 66.5),
    ],
)
def test_the_units_are_the_sum_of_what_is_called(name: str, plain: float, as_published: float | None) -> None:
    one = BY_NAME[name]
    assert one.units(checkpointing=False) == pytest.approx(plain)
    assert one.units(checkpointing=one.checkpointing) == pytest.approx(plain if as_published is None else as_published)


def test_every_other_method_is_counted_by_hand_above() -> None:
    assert len(BY_NAME) == len(OTHERS) == 7


def test_dmd2_without_its_gan_costs_what_our_recipe_of_it_costs() -> None:
    ours = load_recipe("dmd2", ["memory.gradient_checkpointing=false"]).config
    assert replace(BY_NAME["DMD2"], adversarial=0.0).units(checkpointing=False) == sum(units_by_part(ours).values())


def test_the_published_code_of_cdm_costs_what_the_plain_formulation_costs() -> None:
    config = load_recipe("sd3-medium").config
    plain = BY_NAME["CDM, its authors' code"].units(checkpointing=True)
    assert plain / sum(units_by_part(config).values()) == pytest.approx(best_ratio(config, 14.5))


def test_all_methods_and_recipes_are_in_the_tables() -> None:
    assert units_table().count("\n") == 1 + len(OTHERS) + len(OURS)
    assert sources_table().count("\n") == 1 + len(OTHERS)


@pytest.mark.slow
def test_the_share_of_the_encoder_of_sdxl_is_counted() -> None:
    import torch

    from fewstep.core.points import NoisyLatent

    adapter = planned_adapter(load_recipe("sdxl").config.backbone)
    adapter.compute_dtype = torch.bfloat16
    network = adapter.network_without_weights().to(torch.bfloat16)
    latents = torch.empty(1, *adapter.latent_shape(1024, 1024), device="meta")
    point = NoisyLatent(latents, torch.empty(1, device="meta"))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        adapter.velocity(network, point, prompts_without_values(adapter, 1, torch.bfloat16))
    blocks = {name: sum(counted.values()) for name, counted in counter.flop_counts.items()}
    root = type(network).__name__
    encoder = sum(blocks[f"{root}.{name}"] for name in ("down_blocks.0", "down_blocks.1", "down_blocks.2", "mid_block"))
    assert encoder / counter.get_total_flops() == pytest.approx(SDXL_ENCODER, abs=5e-4)
