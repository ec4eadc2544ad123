"""How many text tokens a plan counts, where training leaves padding out."""

from pathlib import Path

import pytest

from fewstep.backbones import create_model_adapter
from fewstep.backbones.protocol import BackboneConfig, ModelAdapter
from fewstep.cli.plan import plan as print_plan
from fewstep.config import load_recipe
from fewstep.data.embeddings import EmbeddingCache, described_text, open_or_build
from fewstep.errors import ConfigError
from fewstep.planning.memory import GIB
from fewstep.planning.meta_networks import described_adapter
from fewstep.planning.plan import Planner
from fewstep.planning.text_tokens import counted
from tests.backbones import tiny, tiny_sana, tiny_vp

TOKENS = 96
PROMPTS = ("a cat", "a dog " * 8)


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tiny.save(tiny_vp.pixart_pipeline(), tmp_path_factory.mktemp("teacher") / "model")
    sizes = ("height=64", "width=64", f"max_sequence_length={TOKENS}")
    return [f"backbone.model={folder}", *(f"backbone.{size}" for size in sizes)]


@pytest.fixture(scope="module")
def backbone(overrides: list[str]) -> BackboneConfig:
    return load_recipe("pixart-sigma", overrides).config.backbone


@pytest.fixture(scope="module")
def adapter(backbone: BackboneConfig) -> ModelAdapter:
    return create_model_adapter(backbone.model, backbone)


@pytest.fixture(scope="module")
def cache(adapter: ModelAdapter, tmp_path_factory: pytest.TempPathFactory) -> EmbeddingCache:
    return open_or_build(tmp_path_factory.mktemp("embeddings"), adapter, PROMPTS)


def test_the_longest_text_of_a_cache_is_that_of_its_masks(cache: EmbeddingCache) -> None:
    shapes, longest = described_text(cache.folder)
    masks = [cond.tensors["prompt_attention_mask"] for cond in (cache.batch([0, 1]), cache.null)]
    assert longest == max(int(mask.sum(1).max()) for mask in masks)
    assert 32 < longest <= 64
    assert shapes == cache.shapes


def test_a_plan_counts_the_tokens_that_training_tells_the_network_of(
    overrides: list[str], adapter: ModelAdapter, cache: EmbeddingCache
) -> None:
    planner = Planner("pixart-sigma", overrides, embeddings=cache.folder)
    told, _ = adapter.without_padding(cache.batch([0, 1]), cache.null)
    assert planner.text_tokens == told.tensors["prompt_embeds"].shape[1] == 64
    planned = planner.roles.adapter.prompt_shapes()
    assert {name: tensor.shape for name, tensor in planned.items()} == {
        name: value.shape[1:] for name, value in told.tensors.items()
    }


def test_where_a_prompt_is_hidden_entirely_all_tokens_are_counted(tmp_path: Path) -> None:
    # the tiny tokenizer of SANA makes nothing of the empty prompt, so attention takes the mean of its padding
    folder = tiny.save(tiny_sana.sana_pipeline(), tmp_path / "model")
    stated = [f"backbone.model={folder}", f"backbone.max_sequence_length={TOKENS}", "backbone.instruction=false"]
    config = load_recipe("sana-600m", stated).config.backbone
    adapter = create_model_adapter(config.model, config)
    cache = open_or_build(tmp_path / "embeddings", adapter, PROMPTS[:1])
    assert not cache.null.tensors["prompt_attention_mask"].any()
    assert counted(adapter, cache.folder) == TOKENS


def test_fewer_tokens_are_less_work_and_change_no_setting(overrides: list[str], cache: EmbeddingCache) -> None:
    whole, left = (Planner("pixart-sigma", overrides, embeddings=folder) for folder in (None, cache.folder))
    assert left.roles.flops < whole.roles.flops
    assert left.roles.prompt_bytes < whole.roles.prompt_bytes
    plans = [planner.plan(gpus=1, memory=80 * GIB) for planner in (whole, left)]
    assert [plan.text_tokens for plan in plans] == [TOKENS, 64]
    assert {plan.choice.config.backbone.max_sequence_length for plan in plans} == {TOKENS}  # type: ignore[attr-defined]


def test_a_plan_says_which_tokens_it_counts(
    overrides: list[str],
    cache: EmbeddingCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for folder in (None, cache.folder):
        print_plan("pixart-sigma", overrides, embeddings=folder)
    text = capsys.readouterr().out
    assert f"All {TOKENS} text tokens of a padded prompt are counted; training leaves out" in text
    assert f"64 text tokens are counted: those of the longest prompt in {cache.folder}, rounded up" in text


def test_embeddings_of_another_size_are_refused(backbone: BackboneConfig, cache: EmbeddingCache) -> None:
    other = backbone.model_copy(update={"max_sequence_length": 300})
    with pytest.raises(ConfigError) as caught:
        counted(create_model_adapter(other.model, other), cache.folder)
    said = str(caught.value)
    assert said.startswith(f"--embeddings is {cache.folder}, whose prompts have the shapes ")
    assert said.endswith("give the folder that fewstep embed names for this recipe.")


@pytest.mark.parametrize("place", [".", "nowhere"])
def test_a_folder_without_embeddings_is_nothing_to_delete(place: str, backbone: BackboneConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        counted(create_model_adapter(backbone.model, backbone), tmp_path / place)
    assert str(caught.value) == (
        f"--embeddings is {tmp_path / place}, which holds no embeddings (it has no index.json); give the folder that "
        "fewstep embed names for this recipe."
    )


def test_where_nothing_is_left_out_embeddings_change_nothing(cache: EmbeddingCache) -> None:
    adapter = described_adapter(load_recipe("digits").config.backbone)
    assert counted(adapter, None) is None
    with pytest.raises(ConfigError) as caught:
        counted(adapter, cache.folder)
    assert str(caught.value) == (
        f"--embeddings is {cache.folder}, but training a backbone of kind {adapter.kind} leaves no padding out, so the "
        "length of its prompts changes nothing; leave it out."
    )
