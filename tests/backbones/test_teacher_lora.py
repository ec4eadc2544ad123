"""``backbone.lora``: files in every layout are merged into the teacher, all of it, or refused by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fewstep.backbones import adapter_class, create_model_adapter
from fewstep.backbones.lora_source import LoraSource
from fewstep.backbones.protocol import ModelAdapter
from fewstep.config import load_recipe
from fewstep.config.identity import config_hash, identity
from fewstep.data.embeddings import cache_key
from fewstep.errors import CheckpointError, ConfigError
from fewstep.export import export_student
from tests.backbones import lora_files
from tests.backbones.families import FAMILIES
from tests.backbones.lora_files import ALPHA, RANK, Factors

SCALE = 0.8
NETWORK_LAYERS = ("to_q", "to_out.0")
ENCODER_LAYERS = ("q_proj", "fc1")
# PixArt and LongCat have no loader of LoRAs in their pipelines; the oracle for them is the formula alone
KINDS = ("sd15", "sdxl", "sd3", "flux", "sana", "pixart", "longcat")
STOCK = ("sd15", "sdxl", "sd3", "flux", "sana")


@dataclass(frozen=True)
class Teacher:
    """A saved tiny pipeline."""

    kind: str
    folder: Path
    pipeline: Any

    def adapter(self, *sources: LoraSource) -> ModelAdapter:
        family = FAMILIES[self.kind]
        fields = {"kind": family.kind, "model": str(self.folder), "lora": sources, **family.config}
        height, width = family.size
        config = adapter_class(family.kind).config_class(**fields, height=height, width=width)
        return create_model_adapter(self.folder, config)

    @property
    def component(self) -> str:
        return "unet" if self.kind in ("sd15", "sdxl") else "transformer"

    @property
    def network(self) -> nn.Module:
        network: nn.Module = getattr(self.pipeline, self.component)
        return network

    def network_factors(self, endings: Sequence[str] = NETWORK_LAYERS) -> Factors:
        return lora_files.factors(self.network, lora_files.layers_of(self.network, endings))

    def encoder_factors(self, name: str = "text_encoder") -> Factors:
        encoder = getattr(self.pipeline, name)
        return lora_files.factors(encoder, lora_files.layers_of(encoder, ENCODER_LAYERS), seed=1)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Teacher]:
    made = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind) / "teacher"
        pipeline = FAMILIES[kind].build()
        pipeline.save_pretrained(folder)
        made[kind] = Teacher(kind, folder, pipeline)
    return made


def require_merged(module: nn.Module, before: nn.Module, factors: Factors, scale: float) -> None:
    """Exactly the layers of the factors have moved, by exactly what the factors say."""
    old = dict(before.named_parameters())
    for name, weight in module.named_parameters():
        pair = factors.get(name.removesuffix(".weight"))
        expected = old[name] if pair is None else lora_files.added(old[name], pair, scale)
        # one float32 product in another order of its factors
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-5 if pair is not None else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_diffusers_is_merged_into_the_network(
    kind: str, teachers: dict[str, Teacher], tmp_path: Path
) -> None:
    teacher = teachers[kind]
    own = teacher.network_factors()
    path = lora_files.diffusers_file(tmp_path / "style.safetensors", {teacher.component: own})
    network = teacher.adapter(LoraSource(path=str(path), scale=SCALE)).load_network()
    require_merged(network, teacher.network, own, SCALE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_peft_is_merged_with_its_own_alpha(kind: str, teachers: dict[str, Teacher], tmp_path: Path) -> None:
    teacher = teachers[kind]
    own = teacher.network_factors()
    folder = lora_files.peft_folder(tmp_path / "style", own, lora_alpha=8)
    network = teacher.adapter(LoraSource(path=str(folder), scale=SCALE)).load_network()
    require_merged(network, teacher.network, own, SCALE * 8 / RANK)


@pytest.mark.parametrize("kind", ["sd15", "sdxl", "sd3", "sana", "pixart"])
def test_a_file_of_kohya_is_merged_with_its_own_alphas(kind: str, teachers: dict[str, Teacher], tmp_path: Path) -> None:
    teacher = teachers[kind]
    own = teacher.network_factors()
    path = lora_files.kohya_file(tmp_path / "style.safetensors", {"lora_unet": own})
    network = teacher.adapter(LoraSource(path=str(path), scale=SCALE)).load_network()
    require_merged(network, teacher.network, own, SCALE * ALPHA / RANK)


def test_a_file_of_kohya_in_the_original_names_of_flux_is_converted(
    teachers: dict[str, Teacher], tmp_path: Path
) -> None:
    teacher = teachers["flux"]
    own = teacher.network_factors(["transformer_blocks.0.attn.to_out.0"])
    (pair,) = own.values()
    path = lora_files.kohya_file(tmp_path / "style.safetensors", {"lora_unet": {"double_blocks.0.img_attn.proj": pair}})
    network = teacher.adapter(LoraSource(path=str(path), scale=SCALE)).load_network()
    require_merged(network, teacher.network, own, SCALE * ALPHA / RANK)


def test_a_file_of_kohya_in_the_original_names_of_sdxl_is_converted(
    teachers: dict[str, Teacher], tmp_path: Path
) -> None:
    teacher = teachers["sdxl"]
    layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    own = lora_files.factors(teacher.network, [layer])
    # layers_per_block 1: inputs 1 and 2 are the first block and its downsampler, 3 is the second block
    original = {"input_blocks.3.1.transformer_blocks.0.attn1.to_q": own[layer]}
    path = lora_files.kohya_file(tmp_path / "style.safetensors", {"lora_unet": original})
    network = teacher.adapter(LoraSource(path=str(path))).load_network()
    require_merged(network, teacher.network, own, ALPHA / RANK)


def test_the_names_of_diffusers_before_peft_are_read(teachers: dict[str, Teacher], tmp_path: Path) -> None:
    teacher = teachers["sd15"]
    own = teacher.network_factors()
    path = lora_files.old_diffusers_file(tmp_path / "style.safetensors", "unet", own)
    network = teacher.adapter(LoraSource(path=str(path))).load_network()
    require_merged(network, teacher.network, own, 1.0)


def test_convolutions_are_merged(teachers: dict[str, Teacher], tmp_path: Path) -> None:
    teacher = teachers["sd15"]
    own = lora_files.factors(teacher.network, ["conv_in", "down_blocks.0.resnets.0.conv1"])
    path = lora_files.diffusers_file(tmp_path / "style.safetensors", {"unet": own})
    network = teacher.adapter(LoraSource(path=str(path))).load_network()
    require_merged(network, teacher.network, own, 1.0)


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
@pytest.mark.parametrize("kind", ["sd15", "sdxl", "flux"])
def test_text_encoders_are_merged_too(kind: str, layout: str, teachers: dict[str, Teacher], tmp_path: Path) -> None:
    teacher = teachers[kind]
    own = teacher.encoder_factors()
    path = tmp_path / "style.safetensors"
    if layout == "diffusers":
        lora_files.diffusers_file(path, {"text_encoder": own})
    else:
        older = {layer if "text_model" in layer else f"text_model.{layer}": pair for layer, pair in own.items()}
        if kind == "flux":  # its converter reads text encoders only beside layers of the network
            pair = next(iter(teacher.network_factors(["transformer_blocks.0.attn.to_out.0"]).values()))
            network = {"double_blocks.0.img_attn.proj": pair}
            lora_files.kohya_file(path, {"lora_te1": older, "lora_unet": network})
        else:
            lora_files.kohya_file(path, {"lora_te1" if kind == "sdxl" else "lora_te": older})
    adapter = teacher.adapter(LoraSource(path=str(path), scale=SCALE))
    pipeline = adapter.load_pipeline(**{teacher.component: None, "vae": None})
    scale = SCALE if layout == "diffusers" else SCALE * ALPHA / RANK
    require_merged(pipeline.text_encoder, teacher.pipeline.text_encoder, own, scale)


@torch.no_grad()
@pytest.mark.parametrize("kind", STOCK)
def test_the_whole_pipeline_is_the_one_that_diffusers_fuses(
    kind: str, teachers: dict[str, Teacher], tmp_path: Path
) -> None:
    teacher = teachers[kind]
    parts = {teacher.component: teacher.network_factors()}
    if kind != "sana":  # diffusers puts nothing on its text encoder
        parts["text_encoder"] = teacher.encoder_factors()
    path = lora_files.diffusers_file(tmp_path / "style.safetensors", parts)
    stock = type(teacher.pipeline).from_pretrained(teacher.folder)
    stock.load_lora_weights(path)
    stock.fuse_lora(components=list(parts), lora_scale=SCALE)
    stock.unload_lora_weights()
    ours = teacher.adapter(LoraSource(path=str(path), scale=SCALE)).load_pipeline()
    for name in parts:
        expected = dict(getattr(stock, name).named_parameters())
        for key, weight in getattr(ours, name).named_parameters():
            torch.testing.assert_close(weight, expected[key], rtol=1e-5, atol=1e-5)


def test_several_are_merged_one_after_the_other(teachers: dict[str, Teacher], tmp_path: Path) -> None:
    teacher = teachers["sd3"]
    own = teacher.network_factors()
    path = lora_files.diffusers_file(tmp_path / "style.safetensors", {"transformer": own})
    twice = [LoraSource(path=str(path), scale=scale) for scale in (0.5, 0.25)]
    require_merged(teacher.adapter(*twice).load_network(), teacher.network, own, 0.75)


def test_a_file_of_a_folder_is_chosen_by_name(teachers: dict[str, Teacher], tmp_path: Path) -> None:
    teacher = teachers["sd3"]
    own = teacher.network_factors()
    for name in ("one.safetensors", "two.safetensors"):
        lora_files.diffusers_file(tmp_path / name, {"transformer": own})
    with pytest.raises(ConfigError, match=r"its safetensors files are: one.safetensors, two.safetensors. Name one"):
        teacher.adapter(LoraSource(path=str(tmp_path))).load_network()
    network = teacher.adapter(LoraSource(path=str(tmp_path), file="two.safetensors")).load_network()
    require_merged(network, teacher.network, own, 1.0)


# What does not fit is refused.


def refusal(teacher: Teacher, path: Path) -> str:
    with pytest.raises((ConfigError, CheckpointError)) as caught:
        teacher.adapter(LoraSource(path=str(path))).require_usable()
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def changed(teacher: Teacher, tmp_path: Path, **tensors: Tensor | None) -> Path:
    """A file that fits, with some of its tensors replaced."""
    path = lora_files.diffusers_file(tmp_path / "style.safetensors", {teacher.component: teacher.network_factors()})
    stored: dict[str, Tensor | None] = {**load_file(path), **tensors}
    save_file({name: value for name, value in stored.items() if value is not None}, path)
    return path


# the tiny twin of LongCat has every layer of FLUX's, so that this pair is not among them
@pytest.mark.parametrize(
    ("of", "into"), [(of, into) for of in KINDS[:-1] for into in ("sd15", "sd3", "flux") if of != into]
)
def test_a_lora_of_another_family_is_refused(of: str, into: str, teachers: dict[str, Teacher], tmp_path: Path) -> None:
    other = teachers[of]
    path = lora_files.diffusers_file(tmp_path / "style.safetensors", {other.component: other.network_factors(["to_k"])})
    assert "Give a LoRA for this" in refusal(teachers[into], path)


def test_one_layer_too_many_is_refused_and_not_left_out(teachers: dict[str, Teacher], tmp_path: Path) -> None:
    extra = {f"transformer.blocks.9.lora_{letter}.weight": torch.ones(2, 2) for letter in "AB"}
    message = refusal(teachers["sd3"], changed(teachers["sd3"], tmp_path, **extra))
    assert "1 of its 5 layers are no layers of the SD3Transformer2DModel" in message and "'blocks.9'" in message


def test_another_shape_is_refused(teachers: dict[str, Teacher], tmp_path: Path) -> None:
    layer = next(iter(teachers["sd3"].network_factors()))
    wrong = {f"transformer.{layer}.lora_A.weight": torch.ones(RANK, 7)}
    assert "have another shape" in refusal(teachers["sd3"], changed(teachers["sd3"], tmp_path, **wrong))


def test_ranks_that_do_not_meet_are_refused(teachers: dict[str, Teacher], tmp_path: Path) -> None:
    layer = next(iter(teachers["sd3"].network_factors()))
    wrong = {f"transformer.{layer}.lora_A.weight": torch.ones(RANK + 1, 32)}
    assert "have another shape" in refusal(teachers["sd3"], changed(teachers["sd3"], tmp_path, **wrong))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_refused(value: float, teachers: dict[str, Teacher], tmp_path: Path) -> None:
    layer = next(iter(teachers["sd3"].network_factors()))
    wrong = {f"transformer.{layer}.lora_A.weight": torch.full((RANK, 32), value)}
    assert "holds values that are no numbers" in refusal(teachers["sd3"], changed(teachers["sd3"], tmp_path, **wrong))


def test_a_factor_without_its_partner_is_refused(teachers: dict[str, Teacher], tmp_path: Path) -> None:
    layer = next(iter(teachers["sd3"].network_factors()))
    path = changed(teachers["sd3"], tmp_path, **{f"transformer.{layer}.lora_B.weight": None})
    assert "without the other" in refusal(teachers["sd3"], path)


@pytest.mark.parametrize(
    ("suffix", "method"),
    [("lora_magnitude_vector.weight", "DoRA"), ("dora_scale", "DoRA"), ("lokr_w1", "LoKr"), ("hada_w1_a", "LoHa")],
)
def test_other_methods_are_named_and_refused(
    suffix: str, method: str, teachers: dict[str, Teacher], tmp_path: Path
) -> None:
    layer = next(iter(teachers["sd3"].network_factors()))
    path = changed(teachers["sd3"], tmp_path, **{f"transformer.{layer}.{suffix}": torch.ones(2)})
    assert f"is a {method}" in refusal(teachers["sd3"], path)


@pytest.mark.parametrize(
    ("kind", "known", "unknown"),
    [
        ("flux", "double_blocks.0.img_attn.proj", "double_blocks.0.nothing_known"),
        ("sdxl", "down_blocks.1.attentions.0.proj_in", "input_blocks.3.1.proj_out"),  # two layouts in one file
    ],
)
def test_what_a_converter_would_leave_out_is_refused(
    kind: str, known: str, unknown: str, teachers: dict[str, Teacher], tmp_path: Path
) -> None:
    ours = "transformer_blocks.0.attn.to_out.0" if kind == "flux" else known
    (pair,) = lora_files.factors(teachers[kind].network, [ours]).values()
    path = lora_files.kohya_file(tmp_path / "style.safetensors", {"lora_unet": {known: pair, unknown: pair}})
    assert "a LoRA for this" in refusal(teachers[kind], path)


def test_a_model_that_is_no_lora_is_refused(teachers: dict[str, Teacher]) -> None:
    path = teachers["sd3"].folder / "transformer" / "diffusion_pytorch_model.safetensors"
    assert "is no LoRA" in refusal(teachers["sd3"], path)


def test_factors_for_an_encoder_that_there_is_not_are_refused(teachers: dict[str, Teacher], tmp_path: Path) -> None:
    own = teachers["sdxl"].encoder_factors("text_encoder_2")
    path = lora_files.diffusers_file(tmp_path / "style.safetensors", {"text_encoder_2": own})
    assert "has factors for the text_encoder_2, but" in refusal(teachers["sd15"], path)


def test_layers_that_the_text_encoder_lacks_are_refused(teachers: dict[str, Teacher], tmp_path: Path) -> None:
    own = {f"encoder.layers.9.{name}": pair for name, pair in teachers["sd15"].encoder_factors().items()}
    path = lora_files.diffusers_file(tmp_path / "style.safetensors", {"text_encoder": own})
    with pytest.raises(ConfigError, match="are no layers of the CLIPTextModel"):
        teachers["sd15"].adapter(LoraSource(path=str(path))).load_pipeline(unet=None, vae=None)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not safetensors", b"\xff" * 64])
def test_a_damaged_file_is_refused(content: bytes, teachers: dict[str, Teacher], tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    path.write_bytes(content)
    assert "cannot be read" in refusal(teachers["sd3"], path)


@pytest.mark.parametrize("name", ["style.ckpt", "style.pt", "pytorch_lora_weights.bin"])
def test_a_pickle_is_refused(name: str, teachers: dict[str, Teacher], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    assert "convert it to safetensors" in refusal(teachers["sd3"], tmp_path / name)


def test_a_missing_file_is_named(teachers: dict[str, Teacher], tmp_path: Path) -> None:
    assert "There is no LoRA" in refusal(teachers["sd3"], tmp_path / "style.safetensors")


# What else follows.


def test_the_export_holds_the_merged_text_encoder(teachers: dict[str, Teacher], tmp_path: Path) -> None:
    teacher = teachers["sdxl"]
    parts = {"unet": teacher.network_factors(), "text_encoder_2": teacher.encoder_factors("text_encoder_2")}
    path = lora_files.diffusers_file(tmp_path / "style.safetensors", parts)
    adapter = teacher.adapter(LoraSource(path=str(path), scale=SCALE))
    done = export_student(adapter, adapter.load_network(), tmp_path / "student", levels=(1.0, 0.5))
    student = type(teacher.pipeline).from_pretrained(done.folder)
    require_merged(student.unet, teacher.network, parts["unet"], SCALE)
    require_merged(student.text_encoder_2, teacher.pipeline.text_encoder_2, parts["text_encoder_2"], SCALE)
    require_merged(student.text_encoder, teacher.pipeline.text_encoder, {}, SCALE)
    reopened = create_model_adapter(done.folder, adapter.config, as_teacher=False)
    require_merged(reopened.load_network(), student.unet, {}, SCALE)  # not merged twice


def test_embeddings_are_new_only_where_a_text_encoder_is(teachers: dict[str, Teacher], tmp_path: Path) -> None:
    teacher = teachers["sd15"]
    style = lora_files.diffusers_file(tmp_path / "style.safetensors", {"unet": teacher.network_factors()})
    words = lora_files.diffusers_file(tmp_path / "words.safetensors", {"text_encoder": teacher.encoder_factors()})

    def key(*sources: LoraSource) -> str:
        return cache_key(teacher.adapter(*sources), ["a red cat"], dtype=torch.float32)

    alone = key()
    assert key(LoraSource(path=str(style))) == alone
    with_words = key(LoraSource(path=str(style)), LoraSource(path=str(words)))
    assert with_words != alone
    assert key(LoraSource(path=str(words))) == with_words
    assert key(LoraSource(path=str(words), scale=0.5)) != with_words


def test_it_is_part_of_a_run_and_absent_from_the_names_of_earlier_ones(tmp_path: Path) -> None:
    plain = load_recipe("digits").config
    assert "lora" not in identity(plain)["backbone"]
    styled = [load_recipe("digits", [f"backbone.lora=[{{path: ./a.safetensors, scale: {s}}}]"]).config for s in (1, 2)]
    assert len({config_hash(config) for config in [plain, *styled]}) == 3


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("base: digits\nbackbone: {lora: [{path: style.safetensors}, {path: ./more}, {path: who/what}]}\n")
    paths = [source.path for source in load_recipe(recipe).config.backbone.lora]
    assert paths == [str(tmp_path / "style.safetensors"), str(tmp_path / "more"), "who/what"]
