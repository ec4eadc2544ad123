"""Models are opened whole or in turn, in the size and with the LoRAs that are asked for."""

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fewstep.backbones.lora_source import LoraSource
from fewstep.errors import ConfigError
from fewstep.sampling.loaded import TextToImage, load_in_turn, load_model, open_adapter
from tests.backbones import lora_files, tiny

PROMPTS = ["a red cat", "two blue dogs", "a green bird"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.sd3_pipeline(), tmp_path_factory.mktemp("loaded") / "teacher")


@pytest.fixture(scope="module")
def model(folder: Path) -> TextToImage:
    return load_model(folder, "cpu")


@pytest.fixture(scope="module")
def lora(folder: Path, model: TextToImage) -> Path:
    layers = lora_files.layers_of(model.network, ("to_q", "to_out.0"))
    own = {"transformer": lora_files.factors(model.network, layers)}
    return lora_files.diffusers_file(folder.parent / "style.safetensors", own)


def test_a_picture_drawn_one_at_a_time_is_bit_for_bit_the_one_drawn_alone(model: TextToImage) -> None:
    together = model.latents(PROMPTS, [1, 2, 3], steps=2, batch=1)
    alone = [model.latents([prompt], [seed], steps=2, batch=1) for prompt, seed in zip(PROMPTS, (1, 2, 3), strict=True)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("batch", [2, 16])
def test_a_picture_in_a_batch_is_the_one_drawn_alone_up_to_rounding(model: TextToImage, batch: int) -> None:
    together = model.latents(PROMPTS, [1, 2, 3], steps=2, batch=batch)
    # float32 sums in another order
    torch.testing.assert_close(together, model.latents(PROMPTS, [1, 2, 3], steps=2, batch=1), rtol=1e-5, atol=1e-5)


PARTS = {"CLIPTextModel": "text", "CLIPTextModelWithProjection": "text", "T5EncoderModel": "text"}
PARTS |= {"SD3Transformer2DModel": "network", "AutoencoderKL": "VAE"}


@contextmanager
def only_new_objects() -> Iterator[None]:
    """Hide what is alive from ``gc.get_objects``: models of other tests, and millions of other objects."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def parts() -> list[str]:
    """Which parts of a model are alive and have parameters."""
    alive = [one for one in gc.get_objects() if type(one).__name__ in PARTS]
    return [PARTS[type(one).__name__] for one in alive if any(True for _ in one.parameters())]


def census_of(draw: Any) -> list[Counter[str]]:
    """Which parts there are before and after every call of one of them."""
    seen: list[Counter[str]] = []

    def look(module: nn.Module, *_: Any) -> None:
        if type(module).__name__ in PARTS:
            seen.append(Counter(parts()))

    before = nn.modules.module.register_module_forward_pre_hook(look)
    after = nn.modules.module.register_module_forward_hook(look)
    try:
        with only_new_objects():
            draw()
    finally:
        before.remove()
        after.remove()
    return seen


def test_in_turn_no_two_of_text_encoders_network_and_vae_are_in_memory(folder: Path) -> None:
    drawer = load_in_turn(folder, "cpu")
    seen = census_of(lambda: drawer.latents(PROMPTS, [1, 2, 3], steps=2))
    assert {part for one in seen for part in one} == {"text", "network"}
    assert [one for one in seen if len(one) > 1] == []


def test_in_turn_the_network_is_gone_when_the_vae_comes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawer = load_in_turn(folder, "cpu")
    decode = type(drawer.adapter).decode
    alive: list[str] = []

    def watched(adapter: Any, vae: nn.Module, x0: Any) -> Any:
        alive.extend(parts())
        return decode(adapter, vae, x0)

    monkeypatch.setattr(type(drawer.adapter), "decode", watched)
    with only_new_objects():
        drawer.images(PROMPTS[:1], [1], steps=1)
    assert alive == ["VAE"]


def test_whole_all_three_are_in_memory(folder: Path) -> None:
    seen = census_of(lambda: load_model(folder, "cpu").latents(PROMPTS[:1], [1], steps=1))
    assert {frozenset(one) for one in seen} == {frozenset({"text", "network", "VAE"})}


def test_in_turn_the_pictures_are_the_same(folder: Path, model: TextToImage) -> None:
    asked: Any = {"steps": 2, "negative_prompt": "blurred"}
    in_turn = load_in_turn(folder, "cpu").images(PROMPTS, [1, 2, 3], **asked)
    whole = model.images(PROMPTS, [1, 2, 3], **asked)
    assert [one.tobytes() for one in in_turn] == [one.tobytes() for one in whole]


def test_a_lora_is_merged_at_its_scale(folder: Path, model: TextToImage, lora: Path) -> None:
    drawer = load_model(folder, "cpu", lora=[LoraSource(path=str(lora), scale=0.8)])
    layers = lora_files.layers_of(model.network, ("to_q", "to_out.0"))
    for layer, pair in lora_files.factors(model.network, layers).items():
        plain, merged = (one.network.get_parameter(f"{layer}.weight") for one in (model, drawer))
        torch.testing.assert_close(merged, lora_files.added(plain, pair, 0.8))


def test_a_lora_of_another_model_is_refused(folder: Path, model: TextToImage, tmp_path: Path) -> None:
    factors = lora_files.factors(model.network, lora_files.layers_of(model.network, ("to_q",))[:1])
    strange = {f"no.such.{layer}": pair for layer, pair in factors.items()}
    wrong = lora_files.diffusers_file(tmp_path / "wrong.safetensors", {"transformer": strange})
    with pytest.raises(ConfigError, match=r"^lora names .*wrong\.safetensors, but 1 of its 1 layers are no layers of"):
        open_adapter(folder, lora=[LoraSource(path=str(wrong))])


def test_a_size_that_a_model_does_not_draw_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"18 x 16 pixels do not fit .* must be multiples of 4; the nearest"):
        open_adapter(folder, height=18)


def test_frames_of_a_model_of_pictures_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="makes pictures, so frames=9 has nothing to set; leave it out"):
        open_adapter(folder, frames=9)
