"""The rebuild of the demo's files, with every stage cut to a few steps."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from fewstep.embedded import assets
from fewstep.embedded.digits.task import Digits
from fewstep.errors import ConfigError
from tools.embedded_teacher import rebuild
from tools.embedded_teacher.flow_training import FlowSettings
from tools.embedded_teacher.pictures import NUM_BASE_DIGITS, load_held_out
from tools.embedded_teacher.rebuild import ClassifierSettings, RebuildSettings, VaeSettings
from tools.embedded_teacher.teacher import load_teacher

pytest.importorskip("sklearn")

SHORT = RebuildSettings(
    pool_per_digit=1,
    vae=VaeSettings(num_steps=2, batch=4),
    flow=FlowSettings(num_steps=2, batch=4, warmup_steps=1, compiled=False),
    classifier=ClassifierSettings(num_steps=2, batch=4),
)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("rebuild")
    rebuild.build_assets(folder, SHORT, lambda line: None)
    with assets.in_place_of_shipped(assets.DIGITS, folder / "assets"):
        yield folder


def test_rebuilt_files_match_their_manifest(output: Path) -> None:
    assert assets.check_files(assets.DIGITS) == output / "assets"


def test_rebuilt_teacher_draws_a_picture(output: Path) -> None:
    pipeline = load_teacher(Digits().teacher_folder())
    image = pipeline("a red handwritten three", num_inference_steps=1, max_sequence_length=1).images[0]
    assert image.size == (32, 32)


def test_reference_is_twenty_rows_of_64_features_per_full_prompt(output: Path) -> None:
    assert Digits().load_reference().shape == (1400, 64)


def test_shipped_digits_are_those_of_the_row_of_real_data(output: Path) -> None:
    real = rebuild.open_workshop(output, SHORT, lambda line: None).real
    shipped = load_held_out()
    assert torch.equal(shipped.images, real.images)
    assert torch.equal(shipped.digits, real.digits)


def test_no_base_digit_has_two_uses(output: Path) -> None:
    shop = rebuild.open_workshop(output, SHORT, lambda line: None)
    uses = torch.cat([part.images.flatten(1) for part in (shop.train, shop.reference, shop.real)])
    assert len(uses.unique(dim=0)) == len(uses) == NUM_BASE_DIGITS


def test_stored_latent_statistics_standardise_the_latents(output: Path) -> None:
    vae = AutoencoderKL.from_pretrained(output / "work" / "vae")
    shop = rebuild.open_workshop(output, SHORT, lambda line: None)
    means = rebuild.encode_means(vae, shop.pool().pixels)
    latents = (means - vae.config.shift_factor) * vae.config.scaling_factor
    assert float(latents.mean()) == pytest.approx(0.0, abs=1e-3)
    assert float(latents.std()) == pytest.approx(1.0, abs=1e-3)


def test_finished_stages_are_skipped(output: Path) -> None:
    lines: list[str] = []
    rebuild.build_assets(output, SHORT, lines.append)
    assert lines == [f"{name}: already there" for name in rebuild.STAGES]


def test_lost_stage_is_made_again_with_the_same_result(output: Path) -> None:
    weights = output / "assets" / Digits.judge_file
    before = load_file(weights)
    weights.unlink()
    rebuild.build_assets(output, SHORT, lambda line: None)
    after = load_file(weights)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_folder_of_another_rebuild_is_refused(output: Path) -> None:
    other = dataclasses.replace(SHORT, seed=1)
    with pytest.raises(ConfigError, match=r"holds a rebuild with other settings.*another output folder"):
        rebuild.build_assets(output, other, lambda line: None)
