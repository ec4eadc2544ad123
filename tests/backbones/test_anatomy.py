"""What an adapter says of its network is looked for in the network itself."""

from pathlib import Path
from typing import Any

import pytest

from fewstep.backbones.anatomy import anatomy
from fewstep.backbones.registry import create_model_adapter
from tests.backbones import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.sd3_pipeline(), tmp_path_factory.mktemp("models") / "teacher")


def looked_at(folder: Path, **said: Any) -> tuple[Any, Any]:
    """The findings about an adapter that says something else than ours, and its real network."""
    adapter = create_model_adapter(folder)
    for name, value in said.items():
        setattr(adapter, name, value)
    return anatomy(adapter, adapter.network_without_weights()), adapter.load_network()


def test_what_our_adapter_says_is_there(folder: Path) -> None:
    found, network = looked_at(folder)
    assert found.problems == ()
    assert found.network == "SD3Transformer2DModel"
    assert found.parameters == sum(parameter.numel() for parameter in network.parameters())
    blocks = [module for module in network.modules() if type(module).__name__ == "JointTransformerBlock"]
    assert found.blocks == {"JointTransformerBlock": len(blocks)}
    assert found.factor_layers > 4 * len(blocks)
    assert found.never_trained > 0  # the last block's context stream


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (
            {"block_classes": ("JointBlock",)},
            "block_classes has JointBlock, but the SD3Transformer2DModel of {model} has no such module; "
            "there is JointTransformerBlock.",
        ),
        (
            {"lora_targets": ("attn.to_qq",)},
            "lora_targets has attn.to_qq, which no layer of the SD3Transformer2DModel of {model} is called; "
            "there is attn.to_q, attn2.to_q, attn.to_v.",
        ),
        (
            {"lora_targets": ("norm_out",)},
            "lora_targets has norm_out, which also means norm_out of the SD3Transformer2DModel of {model}, but a "
            "AdaLayerNormContinuous takes no factors.",
        ),
        (
            {"never_trained": ("nothing.*",)},
            "never_trained has nothing.*, which matches no parameter of the SD3Transformer2DModel of {model}.",
        ),
    ],
)
def test_a_name_that_matches_nothing_is_told_with_the_nearest(
    folder: Path, said: dict[str, tuple[str, ...]], problem: str
) -> None:
    assert looked_at(folder, **said)[0].problems == (problem.format(model=folder),)
