"""What published text encoders and their tokenizers say of themselves, and what is made of it; on tiny twins."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fewstep.backbones import ModelAdapter, adapter_class, create_model_adapter
from tests.published_twins import PUBLISHED, TWINS, build, raw

SDXL, SD21 = "stabilityai--stable-diffusion-xl-base-1.0", "stabilityai--stable-diffusion-2-1"
SD3, FLUX = "stabilityai--stable-diffusion-3-medium-diffusers", "black-forest-labs--FLUX.1-dev"
PROMPTS = ["a cat", "a blue dog on a mat"]


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: build(name, tmp_path_factory.mktemp("twin") / name) for name in (SDXL, SD3, FLUX)}


def adapter_of(name: str, folder: Path) -> ModelAdapter:
    twin = TWINS[name]
    fields = {"kind": twin.kind, "model": str(folder), "height": 64, "width": 64, **twin.config}
    return create_model_adapter(folder, adapter_class(twin.kind).config_class(**fields))


def text_pipeline(adapter: ModelAdapter) -> Any:
    return adapter.load_pipeline(**{adapter.network_component: None, "vae": None})


def at_the_end(encoder: Any, tokenizer: Any) -> Tensor:
    """The projected state of each prompt's end token."""
    ids = tokenizer(PROMPTS, padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt").input_ids
    ends = [row.index(tokenizer.eos_token_id) for row in ids.tolist()]
    states = encoder(ids).last_hidden_state[torch.arange(len(ends)), torch.tensor(ends)]
    projected: Tensor = encoder.text_projection(states)
    return projected


@torch.no_grad()
@pytest.mark.parametrize("pad", [None, "!"], ids=["padded with the end token", "padded with !"])
@pytest.mark.parametrize("name", [SDXL, SD3])
def test_pooling_is_at_the_tokenizers_end_token_and_not_at_the_one_of_the_file(
    name: str, pad: str | None, twins: dict[str, Path]
) -> None:
    """The files say 2, which is a letter; the tokenizers of SDXL and SD3 fill up with an exclamation mark."""
    assert raw(name, "text_encoder_2/config.json")["eos_token_id"] == 2
    adapter = adapter_of(name, twins[name])
    pipeline = text_pipeline(adapter)
    pipeline.tokenizer_2.pad_token = pad or pipeline.tokenizer_2.eos_token
    pooled = adapter.encode(pipeline, PROMPTS).tensors["pooled_prompt_embeds"]
    expected = at_the_end(pipeline.text_encoder_2, pipeline.tokenizer_2)
    torch.testing.assert_close(pooled[:, -expected.shape[1] :], expected, rtol=1e-5, atol=1e-5)


def test_a_layer_that_was_removed_is_not_skipped_once_more() -> None:
    """Stable Diffusion 2 reads the last state of 23 layers: that of its CLIP's layer before the last."""
    assert raw(SD21, "text_encoder/config.json")["num_hidden_layers"] == 23
    assert create_model_adapter(str(PUBLISHED / SD21)).components["text_encoder"]["num_hidden_layers"] == 23


@pytest.mark.parametrize("key", ["torch_dtype", "dtype"])
def test_the_precision_that_a_file_names_is_not_the_one_that_is_loaded(
    key: str, twins: dict[str, Path], tmp_path: Path
) -> None:
    file = twins[SDXL] / "text_encoder_2" / "config.json"
    config = json.loads(file.read_text())
    assert config.pop("torch_dtype", None) == "float16"
    whole = file.read_text()
    try:
        file.write_text(json.dumps({**config, key: "float16"}))
        encoder = text_pipeline(adapter_of(SDXL, twins[SDXL])).text_encoder_2
    finally:
        file.write_text(whole)
    assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}


@torch.no_grad()
@pytest.mark.parametrize(("name", "component"), [(SD3, "text_encoder_3"), (FLUX, "text_encoder_2")])
def test_a_table_of_words_that_is_stored_once_is_loaded_in_both_its_places(
    name: str, component: str, twins: dict[str, Path]
) -> None:
    """The published T5 holds shared.weight and no encoder.embed_tokens.weight, in shards."""
    folder = twins[name] / component
    adapter = adapter_of(name, twins[name])
    before = getattr(text_pipeline(adapter), component)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    before.save_pretrained(folder, max_shard_size="10KB")
    placed = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert "shared.weight" in placed
    assert "encoder.embed_tokens.weight" not in placed
    after = getattr(text_pipeline(adapter), component)
    assert after.encoder.embed_tokens.weight is after.shared.weight
    assert torch.equal(after.shared.weight, before.shared.weight)
