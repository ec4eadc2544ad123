"""Folders become pictures."""

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from fewstep.backbones.refused import few_steps
from fewstep.errors import CheckpointError, ConfigError
from fewstep.sampling import load_model, sample
from fewstep.sampling.loaded import TextToImage
from fewstep.sampling.pictures import picture_paths, require_writable, save_picture, to_pil
from tests.backbones import tiny

PROMPTS = ["a red cat", "two blue dogs", "a red cat"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.sd3_pipeline(), tmp_path_factory.mktemp("sampling") / "teacher")


@pytest.fixture(scope="module")
def model(folder: Path) -> TextToImage:
    return load_model(folder, "cpu")


def test_batch_size_does_not_change_the_pictures(model: TextToImage) -> None:
    together = model.latents(PROMPTS, [1, 2, 3], steps=2)
    one_by_one = model.latents(PROMPTS, [1, 2, 3], steps=2, batch=1)
    # float32 sums in another order
    torch.testing.assert_close(together, one_by_one, rtol=1e-5, atol=1e-5)


def test_same_prompt_and_seed_give_the_same_picture_in_any_company(model: TextToImage) -> None:
    alone = model.latents(["a red cat"], [3], steps=2)
    torch.testing.assert_close(model.latents(PROMPTS, [1, 2, 3], steps=2)[2:], alone, rtol=1e-5, atol=1e-5)


def test_an_expected_prompt_is_embedded_alike_whoever_is_drawn_beside_it(folder: Path) -> None:
    drawer = load_model(folder, "cpu")
    drawer.embedder.expect([f"{number} red cats" for number in range(40)])
    whole = drawer.embedder.conditioning(["3 red cats", "35 red cats", "a dog"])
    for position, prompt in enumerate(("3 red cats", "35 red cats")):
        alone = drawer.embedder.conditioning([prompt])
        # one chunk of prompts, embedded again: bits are those of one shape of call
        assert all(torch.equal(alone.tensors[name][0], whole.tensors[name][position]) for name in whole.tensors)


def test_seeds_give_different_pictures(model: TextToImage) -> None:
    first, _, other = model.latents(PROMPTS, [1, 2, 3], steps=2)
    assert (first - other).abs().max() > 0.1


def test_plain_folder_is_drawn_with_its_pipelines_own_guidance(model: TextToImage) -> None:
    assert model.default_guidance_scale() == 7.0
    own = model.latents(PROMPTS, [1, 2, 3], steps=2)
    stated = model.latents(PROMPTS, [1, 2, 3], steps=2, guidance_scale=7.0)
    assert torch.equal(own, stated)


def test_negative_prompt_takes_the_place_of_the_empty_one(model: TextToImage) -> None:
    empty, plain, negative = (
        model.latents(PROMPTS, [1, 2, 3], steps=2, guidance_scale=4.5, negative_prompt=text)
        for text in ("", None, "blurred")
    )
    assert torch.equal(empty, plain)
    assert (negative - plain).abs().max() > 1e-3


def test_negative_prompt_reaches_the_picture(folder: Path) -> None:
    asked = {"steps": 1, "seed": 7, "guidance_scale": 4.5, "device": "cpu"}
    plain, negative = (sample(folder, "a red cat", negative_prompt=text, **asked)[0] for text in (None, "blurred"))  # type: ignore[arg-type]
    assert plain.tobytes() != negative.tobytes()


def test_negative_prompt_without_guidance_is_refused_before_weights_are_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewstep.sampling.drawing.load_model", None)
    with pytest.raises(ConfigError) as refused:
        sample(folder, "a red cat", guidance_scale=1.0, negative_prompt="blurred", device="cpu")
    assert str(refused.value) == (
        f"{folder} is drawn at guidance scale 1, which is off, so a negative prompt would change nothing; "
        "set a guidance scale above 1 or leave the negative prompt out."
    )


def test_negative_prompt_of_a_model_whose_own_guidance_is_off_is_refused(tmp_path: Path) -> None:
    tiny.save(tiny.sd3_pipeline(), tmp_path / "student")
    facts = {"role": "student", "backbone": "sd3", "height": 16, "width": 16, "guidance_scale": 1.0}
    (tmp_path / "student" / "fewstep.json").write_text(json.dumps(facts))
    with pytest.raises(ConfigError, match="student is drawn at guidance scale 1, which is off, so a negative prompt"):
        sample(tmp_path / "student", "a red cat", negative_prompt="blurred", device="cpu")


def test_prompts_that_are_cut_are_counted(model: TextToImage, caplog: pytest.LogCaptureFixture) -> None:
    long = "a very long story of a cat that went to the sea and came home again"
    with caplog.at_level("WARNING", logger="fewstep"):
        model.latents(["a cat", long], [0, 0], steps=1, guidance_scale=4.5, negative_prompt=long)
    said = [record.getMessage().partition(" (")[0] for record in caplog.records]
    assert "1 of 2 prompts is longer than 40 tokens and is cut" in said
    assert "1 of 1 prompts is longer than 40 tokens and is cut" in said


def test_facts_of_a_teacher_state_its_guidance(folder: Path, tmp_path: Path) -> None:
    tiny.save(tiny.sd3_pipeline(), tmp_path / "teacher")
    facts = {"role": "teacher", "backbone": "sd3", "height": 24, "width": 12, "steps": 50, "guidance_scale": 2.0}
    (tmp_path / "teacher" / "fewstep.json").write_text(json.dumps(facts))
    model = load_model(tmp_path / "teacher", "cpu")
    assert (model.default_steps(), model.default_guidance_scale()) == (50, 2.0)
    assert model.latent_shape == (4, 12, 6)


def test_known_few_step_model_is_drawn_as_it_was_distilled(tmp_path: Path) -> None:
    model = load_model(tiny.save(tiny.sd3_pipeline(), tmp_path / "byliutao" / "stable-diffusion-3-medium-turbo"), "cpu")
    own = model.latents(PROMPTS, [1, 2, 3])
    stated = model.latents(PROMPTS, [1, 2, 3], sigmas=[1.0, 0.9, 0.75, 0.5], guidance_scale=1.0)
    # float32 rounding of the shift
    torch.testing.assert_close(own, stated, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "steps"),
    [
        ("Tongyi-MAI/Z-Image-Turbo", 8),
        ("Tongyi-MAI/Z-Image", None),
        ("/cache/hub/models--stabilityai--sdxl-turbo/snapshots/1a2b", 1),
        ("somewhere/sdxl-turbo", None),
    ],
)
def test_few_step_models_are_known_by_their_id(model: str, steps: int | None) -> None:
    assert few_steps(model) == steps


def test_model_draws_its_own_number_of_steps(model: TextToImage) -> None:
    assert model.default_steps() == 28  # of the stock pipeline's call


def test_given_sigmas_are_used_as_they_are(model: TextToImage) -> None:
    shifted = model.latents(PROMPTS, [1, 2, 3], steps=4)
    given = model.latents(PROMPTS, [1, 2, 3], sigmas=[1.0, 0.9, 0.75, 0.5])
    torch.testing.assert_close(shifted, given, rtol=1e-5, atol=1e-5)


def test_pictures_have_the_size_of_the_config(model: TextToImage) -> None:
    images = model.images(PROMPTS, [1, 2, 3], steps=1)
    assert [image.size for image in images] == [(16, 16)] * 3


def test_pixels_are_the_rounded_decoding(model: TextToImage) -> None:
    latents = model.latents(["a red cat"], [1], steps=1)
    pixels = model.pixels(latents)
    decoded = model.adapter.decode(model.vae, latents)
    assert pixels.dtype == torch.uint8
    assert (pixels / 255 - decoded).abs().max() <= 0.5 / 255 + 1e-6


def test_sample_writes_one_picture_where_it_is_told(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "picture.png"
    images = sample(folder, "a red cat", steps=1, seed=7, output=output, device="cpu")
    assert Image.open(output).tobytes() == images[0].tobytes()
    assert [path.name for path in output.parent.iterdir()] == ["picture.png"]


def test_sample_numbers_several_pictures(folder: Path, tmp_path: Path) -> None:
    images = sample(folder, ["a red cat", "two blue dogs"], steps=1, output=tmp_path / "cats.png", device="cpu")
    written = [Image.open(tmp_path / f"cats-000{index}.png").tobytes() for index in range(2)]
    assert written == [image.tobytes() for image in images]


def test_sample_repeats_itself(folder: Path) -> None:
    first, second = (sample(folder, "a red cat", steps=1, seed=7, device="cpu")[0].tobytes() for _ in range(2))
    assert first == second


def test_bfloat16_draws_nearly_the_same(folder: Path, model: TextToImage) -> None:
    low = load_model(folder, "cpu", dtype=torch.bfloat16).latents(PROMPTS, [1, 2, 3], steps=2, guidance_scale=1.0)
    full = model.latents(PROMPTS, [1, 2, 3], steps=2, guidance_scale=1.0)
    # eight bits in each of two network calls
    assert (low - full).abs().mean() < 0.03 * full.abs().mean()


def test_no_prompt_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="There is no prompt to draw; give at least one"):
        sample(folder, [])


def test_no_step_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="steps is 0; it must be a whole number from 1 to 1000"):
        sample(folder, "a red cat", steps=0)


def test_output_that_is_no_png_is_refused_before_the_model_is_opened() -> None:
    with pytest.raises(ConfigError, match=r"output picture\.jpg must be a \.png file"):
        sample("nowhere/at-all", "a red cat", output="picture.jpg")


def test_output_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "album.png").mkdir()
    with pytest.raises(ConfigError, match=r"album\.png is a folder; give the name of a \.png file inside it"):
        picture_paths(tmp_path / "album.png", 1)


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"Cannot write pictures into .*file/below: Not a directory"):
        require_writable([tmp_path / "file" / "below" / "a.png"])


def test_picture_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = to_pil(torch.stack([torch.zeros(3, 2, 2), torch.full((3, 2, 2), 255.0)]).to(torch.uint8))
    save_picture(old, tmp_path / "a.png")

    def full_disk(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(ConfigError, match=r"Cannot write .*a\.png: No space left on device"):
        save_picture(new, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").tobytes() == old.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_damaged_vae_is_refused(tmp_path: Path) -> None:
    tiny.save(tiny.sd3_pipeline(), tmp_path / "teacher")
    weights = tmp_path / "teacher" / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"The weights .*vae.* cannot be read"):
        load_model(tmp_path / "teacher", "cpu")
