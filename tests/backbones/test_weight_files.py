"""Which weights a component has, from the names of its files alone."""

import pytest

from fewstep.backbones.weight_files import WeightFiles, choose, is_weights
from fewstep.errors import CheckpointError

UNET = "diffusion_pytorch_model"
SD15_UNET = [
    "config.json",
    *(f"{UNET}{form}.{kind}" for kind in ("bin", "safetensors") for form in ("", ".fp16", ".non_ema")),
]
T5_FULL = [f"model-0000{shard}-of-00002.safetensors" for shard in (1, 2)]
T5_HALF = [f"model.fp16-0000{shard}-of-00002.safetensors" for shard in (1, 2)]
T5 = [*T5_FULL, "model.safetensors.index.json", *T5_HALF, "model.safetensors.index.fp16.json", "config.json"]


def chosen(names: list[str], *, of_diffusers: bool = True) -> WeightFiles:
    return choose(names, of_diffusers=of_diffusers, place="The unet of somebody/model")


FP16, BF16, NON_EMA = (f"{UNET}.{variant}.safetensors" for variant in ("fp16", "bf16", "non_ema"))
FULL, FULL_BIN, FP16_BIN = f"{UNET}.safetensors", f"{UNET}.bin", f"{UNET}.fp16.bin"
OLD_HALF = [f"{UNET}-0000{shard}-of-00002.fp16.safetensors" for shard in (1, 2)]
OLD_INDEX, HALF_INDEX = f"{UNET}.safetensors.index.fp16.json", "model.safetensors.index.fp16.json"
CASES: dict[str, tuple[list[str], list[str], str | None]] = {
    "everything that SD1.5 has": (SD15_UNET, [FULL], None),
    "only half precision": ([FP16, "config.json"], [FP16], "fp16"),
    "only a pickle": ([FULL_BIN], [FULL_BIN], None),
    "a full pickle and half precision": ([FULL_BIN, FP16], [FULL_BIN], None),
    "half precision twice": ([FP16_BIN, FP16], [FP16], "fp16"),
    "half precision as a pickle": ([FP16_BIN], [FP16_BIN], "fp16"),
    "two variants": ([FP16_BIN, BF16], [BF16], "bf16"),
    "weights without averaging and half precision": ([NON_EMA, FP16], [FP16], "fp16"),
    "only weights without averaging": ([NON_EMA], [NON_EMA], "non_ema"),
    "older names of shards": ([*OLD_HALF, OLD_INDEX], [OLD_INDEX, *OLD_HALF], "fp16"),
    "names of the other library": (["model.safetensors", FP16], [FP16], "fp16"),
}
OF_TRANSFORMERS: dict[str, tuple[list[str], list[str], str | None]] = {
    "shards in both precisions": (T5, ["model.safetensors.index.json", *T5_FULL], None),
    "shards in half precision": ([*T5_HALF, HALF_INDEX], [HALF_INDEX, *T5_HALF], "fp16"),
    "one file beside shards": ([*T5, "model.safetensors"], ["model.safetensors"], None),
    "a pickle": (["pytorch_model.bin", FULL], ["pytorch_model.bin"], None),
}


@pytest.mark.parametrize("case", CASES)
def test_full_weights_come_first_and_a_variant_is_better_than_none(case: str) -> None:
    names, expected, variant = CASES[case]
    assert chosen(names) == WeightFiles(tuple(expected), variant, expected[-1].endswith(".safetensors"))


@pytest.mark.parametrize("case", OF_TRANSFORMERS)
def test_transformers_has_names_of_its_own(case: str) -> None:
    names, expected, variant = OF_TRANSFORMERS[case]
    found = chosen(names, of_diffusers=False)
    assert found == WeightFiles(tuple(expected), variant, expected[-1].endswith(".safetensors"))


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], "has no weights. Get"),
        (["config.json"], "has no weights. Get"),
        (["sdxl.safetensors"], "no weights of a name that is loaded, such as .*; it holds sdxl.safetensors"),
        (["model.ckpt", "flax_model.msgpack"], "it holds flax_model.msgpack, model.ckpt"),
        (
            [f"{UNET}-00001-of-00003.safetensors", f"{UNET}.safetensors.index.json"],
            "lacks .*00002-of-00003.* not whole",
        ),
        ([f"{UNET}-00001-of-00001.safetensors"], rf"lacks {UNET}\.safetensors\.index\.json, without"),
        ([f"{UNET}.safetensors.index.json"], "lacks its shards"),
        ([f"{UNET}-00001-of-00002.safetensors", f"{UNET}.fp16.safetensors"], "lacks .*index.*00002-of-00002"),
        ([f"{UNET}-00001-of-00002.safetensors", f"{UNET}-00001-of-00003.safetensors"], "mixes shards of 2 sets"),
        ([f"{UNET}-00001-of-99999.safetensors", f"{UNET}.safetensors.index.json"], "and 1996 more"),
    ],
)
def test_weights_that_are_not_whole_are_named(names: list[str], told: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^The unet of somebody/model .*{told}"):
        chosen(names)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("model.fp16.safetensors", "model.safetensors"),
        ("model.fp16-00001-of-00002.safetensors", "model-00001-of-00002.safetensors"),
        ("model-00001-of-00002.fp16.safetensors", "model-00001-of-00002.safetensors"),
        ("model.safetensors.index.fp16.json", "model.safetensors.index.json"),
    ],
)
def test_a_plain_name_has_no_variant(name: str, plain: str) -> None:
    assert WeightFiles((name,), "fp16", True).plain_name(name) == plain
    assert WeightFiles((name,), None, True).plain_name(name) == name


@pytest.mark.parametrize("name", ["spiece.model", "config.json", "tokenizer.json", "model.txt", "merges.txt"])
def test_other_files_are_no_weights(name: str) -> None:
    assert not is_weights(name)


@pytest.mark.parametrize("name", [*SD15_UNET[1:], *T5[:-1], "flax_model.msgpack", "model.onnx", "x.pb"])
def test_every_layout_of_weights_is_told_from_other_files(name: str) -> None:
    assert is_weights(name)
