"""A backbone that is not ours, as docs/adding-a-backbone.md has it: what a plan and an estimate ask of it."""

from typing import Any

import pytest
import torch

from fewstep.backbones.flow_match import FlowMatchAdapter
from fewstep.core.conditioning import PromptTensor
from fewstep.data.sizes import estimate_from_shapes
from fewstep.errors import ConfigError
from fewstep.planning.activations import PlannedNetwork
from fewstep.planning.meta_networks import prompts_without_values
from tests.backbones import tiny
from tests.docs.following import blocks


def page_adapter() -> type[FlowMatchAdapter]:
    """The adapter that the page makes."""
    (source,) = (
        text for _, name, text in blocks("adding-a-backbone.md") if name == "fewstep-auraflow/fewstep_auraflow.py"
    )
    module: dict[str, Any] = {"__name__": "fewstep_auraflow"}
    exec(source, module)
    found: type[FlowMatchAdapter] = module["AuraFlowAdapter"]
    return found


def adapter(**network: Any) -> FlowMatchAdapter:
    files = {
        "model_index": {"_class_name": "AuraFlowPipeline"},
        "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.73},
        "vae": {"block_out_channels": [8, 8], "scaling_factor": 0.5},
        "transformer": {"num_mmdit_layers": 1, "num_single_dit_layers": 2, "attention_head_dim": 8, **network},
    }
    components = tiny.whole(files, "AuraFlowTransformer2DModel", "AutoencoderKL")
    outside = page_adapter()
    return outside(outside.config_class(model="outside", height=16, width=16, max_sequence_length=24), components)


SMALL = {"num_attention_heads": 2, "joint_attention_dim": 32, "caption_projection_dim": 16, "sample_size": 8}


def test_the_shapes_of_a_prompt_follow_from_the_configuration() -> None:
    outside = adapter(**SMALL)
    assert outside.prompt_shapes() == {"prompt_embeds": PromptTensor((24, 32))}
    found = estimate_from_shapes(outside.prompt_shapes(), num_prompts=10, embeddings=torch.bfloat16)
    assert found.total_bytes == 10 * 24 * 32 * 2


def test_a_plan_asks_its_network_with_prompts_of_these_shapes() -> None:
    outside = adapter(**SMALL)
    assert prompts_without_values(outside, 3, torch.bfloat16).tensors["prompt_embeds"].shape == (3, 24, 32)
    measured = PlannedNetwork.trained(outside, compute=torch.bfloat16).activations(False)
    assert measured.backward.at(1) > measured.kept.at(1) > 0


def test_a_network_that_does_not_say_how_wide_prompts_are_has_to_be_told() -> None:
    outside = adapter(**SMALL)
    outside.network_config = {"in_channels": 4}
    with pytest.raises(ConfigError, match=r"does not say how wide .* AuraFlowAdapter has to, in prompt_shapes\(\)"):
        outside.prompt_shapes()
