"""Every backbone passes the one suite, and its released networks have their published sizes."""

import importlib

import pytest
import torch
from torch import nn

from fewstep.backbones import ModelAdapter, adapter_class
from fewstep.backbones.anatomy import anatomy
from fewstep.testing import conformance
from tests.backbones.families import FAMILIES, REAL_CONFIGURATIONS

TestFamilies = conformance(*FAMILIES.values())

# tokens and width of the embeddings, then the pooled vector or the mask, at the settings that the pipelines have
REAL_PROMPTS: dict[str, tuple[tuple[int, ...], list[tuple[int]]]] = {
    **dict.fromkeys(("sd3-medium", "sd35-medium", "sd35-large"), ((77 + 256, 4096), [(2048,)])),
    "flux1-dev": ((512, 4096), [(768,)]),
    "longcat-image": ((512, 3584), []),
    **dict.fromkeys(("sana-600m", "sana-1600m"), ((300, 2304), [(300,)])),
    "pixart-sigma": ((300, 4096), [(300,)]),
    **dict.fromkeys(("wan21-1.3b", "wan22-5b"), ((512, 4096), [])),
    "cogvideox-2b": ((226, 4096), []),
    "sd15": ((77, 768), []),
    "sd21": ((77, 1024), []),
    "sdxl": ((77, 2048), [(1280,)]),
    "z-image": ((512, 2560), [(512,)]),
    "qwen-image": ((512, 3584), [(512,)]),
    "flux2-klein-base-4b": ((512, 7680), []),
    "flux2-klein-base-9b": ((512, 12288), []),
    "flux2-dev": ((512, 15360), []),
    "chroma1-hd": ((512, 4096), [(512,)]),
    "krea2-raw": ((512, 12, 2560), [(512,)]),
    "qwen-image-2.1": ((512, 4096), [(512,)]),
}


@pytest.fixture(params=sorted(REAL_CONFIGURATIONS))
def on_meta(request: pytest.FixtureRequest) -> tuple[ModelAdapter, nn.Module, int]:
    real = REAL_CONFIGURATIONS[request.param]
    kind = adapter_class(real.kind)
    config = kind.config_class(kind=real.kind, model=request.param)
    with torch.device("meta"):
        network = getattr(importlib.import_module("diffusers"), real.network_class).from_config(
            real.components[kind.network_component]
        )
    return kind(config, real.components), network, real.num_parameters


def test_real_configuration_has_the_published_size(on_meta: tuple[ModelAdapter, nn.Module, int]) -> None:
    _, network, expected = on_meta
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_real_configuration_has_the_published_shapes_of_a_prompt(on_meta: tuple[ModelAdapter, nn.Module, int]) -> None:
    adapter, _, _ = on_meta
    embeds, *others = (tensor.shape for tensor in adapter.prompt_shapes().values())
    assert (embeds, others) == REAL_PROMPTS[adapter.config.model]


def test_real_configuration_has_what_the_adapter_names(on_meta: tuple[ModelAdapter, nn.Module, int]) -> None:
    adapter, network, _ = on_meta
    assert anatomy(adapter, network).problems == ()
