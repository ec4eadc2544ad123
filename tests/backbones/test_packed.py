"""Packed latents, their positions, their clock and the limit on token norms."""

import math

import pytest
import torch
from diffusers import FluxPipeline
from diffusers.pipelines.longcat_image.pipeline_longcat_image import prepare_pos_ids
from hypothesis import given
from hypothesis import strategies as st

from fewstep.backbones import packed


def latents(height: int = 6, width: int = 4) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 2, 4]))
def test_unpacking_inverts_packing(rows: int, columns: int, patch: int) -> None:
    x = latents(patch * rows, patch * columns)
    assert torch.equal(packed.unpack(packed.pack(x, patch), patch * rows, patch * columns, patch), x)


def test_packing_is_the_stock_pipelines() -> None:
    x = latents()
    assert torch.equal(packed.pack(x), FluxPipeline._pack_latents(x, 2, 3, 6, 4))


def test_positions_of_flux_are_the_stock_pipelines() -> None:
    stock = FluxPipeline._prepare_latent_image_ids(1, 3, 2, "cpu", torch.float32)
    assert torch.equal(packed.image_positions(6, 4), stock)


def test_positions_of_longcat_are_the_stock_pipelines() -> None:
    stock = prepare_pos_ids(modality_id=1, type="image", start=(512, 512), height=3, width=2)
    assert torch.equal(packed.image_positions(6, 4, modality=1, start=512), stock)


def test_every_position_of_a_large_picture_is_distinct() -> None:
    positions = packed.image_positions(256, 256, modality=1, start=512)
    assert positions.dtype == torch.float32
    assert len(positions.unique(dim=0)) == 128 * 128


def test_clock_is_exact_in_float32() -> None:
    sigma = torch.tensor([1.0, 0.9045, 0.7595, 0.5128])
    torch.testing.assert_close(packed.thousandths(sigma, torch.float32), sigma, rtol=1e-7, atol=0)


@pytest.mark.parametrize(("sigma", "seen"), [(0.999, 1000.0), (0.75, 752.0), (0.5, 500.0)])
def test_clock_in_bfloat16_rounds_as_the_stock_pipeline_does(sigma: float, seen: float) -> None:
    time = packed.thousandths(torch.tensor([sigma]), torch.bfloat16)
    # what a network in bfloat16 makes of it
    assert (time * 1000).item() == seen


def test_token_that_is_too_long_gets_the_conditional_norm() -> None:
    conditional = latents()
    limited = packed.limit_token_norms(3.0 * conditional, conditional, floor=0.0)
    torch.testing.assert_close(limited, conditional, rtol=1e-6, atol=1e-6)


def test_token_that_is_shorter_stays_as_it_is() -> None:
    conditional = latents()
    assert torch.equal(packed.limit_token_norms(0.5 * conditional, conditional, floor=0.0), 0.5 * conditional)


def test_floor_bounds_the_shrinking() -> None:
    conditional = latents()
    limited = packed.limit_token_norms(10.0 * conditional, conditional, floor=0.4)
    torch.testing.assert_close(limited, 4.0 * conditional, rtol=1e-6, atol=1e-6)


def test_each_token_has_its_own_limit() -> None:
    conditional, guided = latents(), latents()
    guided[:, :, :2, :2] *= 5.0
    limited = packed.limit_token_norms(guided, conditional, floor=0.0)
    torch.testing.assert_close(limited, conditional, rtol=1e-6, atol=1e-6)


def test_token_that_is_shorter_grows_to_the_ceiling() -> None:
    conditional = latents()
    grown = packed.limit_token_norms(0.5 * conditional, conditional, floor=0.0, ceiling=math.inf)
    torch.testing.assert_close(grown, conditional, rtol=1e-6, atol=1e-6)
