"""The work of one forward in the matrix is what the real network does, counted on the meta device."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fewstep.planning.activations import KnownMasks
from fewstep.planning.porting_matrix import PORTED
from tests.backbones.families import REAL_CONFIGURATIONS


def blank(*shape: int) -> Tensor:
    return torch.empty(*shape, device="meta")


def sd3() -> dict[str, Any]:
    text = {"encoder_hidden_states": blank(1, 333, 4096), "pooled_projections": blank(1, 2048)}
    return {"hidden_states": blank(1, 16, 128, 128), "timestep": blank(1), **text}


def sana() -> dict[str, Any]:
    text = {"encoder_hidden_states": blank(1, 300, 2304), "encoder_attention_mask": blank(1, 300)}
    return {"hidden_states": blank(1, 32, 32, 32), "timestep": blank(1), **text}


def packed(width: int) -> dict[str, Any]:
    ids = {"txt_ids": blank(512, 3), "img_ids": blank(4096, 3)}
    text = blank(1, 512, width)
    return {"hidden_states": blank(1, 4096, 64), "timestep": blank(1), "encoder_hidden_states": text, **ids}


def flux() -> dict[str, Any]:
    return {**packed(4096), "guidance": blank(1), "pooled_projections": blank(1, 768)}


def longcat() -> dict[str, Any]:
    return packed(3584)


def pixart() -> dict[str, Any]:
    text = {"encoder_hidden_states": blank(1, 300, 4096), "encoder_attention_mask": blank(1, 300)}
    conditions = {"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}
    return {"hidden_states": blank(1, 4, 128, 128), "timestep": blank(1), **text, **conditions}


def wan() -> dict[str, Any]:
    text = {"encoder_hidden_states": blank(1, 512, 4096)}
    return {"hidden_states": blank(1, 16, 21, 60, 104), "timestep": blank(1), **text}


def cogvideox() -> dict[str, Any]:
    text = {"encoder_hidden_states": blank(1, 226, 4096)}
    return {"hidden_states": blank(1, 13, 16, 60, 90), "timestep": blank(1), **text}


def wan22() -> dict[str, Any]:
    return {**wan(), "hidden_states": blank(1, 48, 31, 44, 80), "timestep": blank(1, 31 * 22 * 40)}


def sd15() -> dict[str, Any]:
    return {"sample": blank(1, 4, 64, 64), "timestep": blank(1), "encoder_hidden_states": blank(1, 77, 768)}


def sdxl() -> dict[str, Any]:
    conditions = {"added_cond_kwargs": {"text_embeds": blank(1, 1280), "time_ids": blank(1, 6)}}
    text = {"encoder_hidden_states": blank(1, 77, 2048)}
    return {"sample": blank(1, 4, 128, 128), "timestep": blank(1), **text, **conditions}


def z_image() -> dict[str, Any]:
    return {"x": [blank(16, 1, 128, 128)], "t": blank(1), "cap_feats": [blank(512, 2560)]}


def klein(width: int = 7680) -> dict[str, Any]:
    ids = {"txt_ids": blank(1, 512, 4), "img_ids": blank(1, 4096, 4), "guidance": None}
    text = blank(1, 512, width)
    return {"hidden_states": blank(1, 4096, 128), "timestep": blank(1), "encoder_hidden_states": text, **ids}


def chroma() -> dict[str, Any]:
    return packed(4096)


def qwen_image() -> dict[str, Any]:
    text = {"encoder_hidden_states": blank(1, 512, 3584), "encoder_hidden_states_mask": None}
    return {"hidden_states": blank(1, 4096, 64), "timestep": blank(1), "img_shapes": [[(1, 64, 64)]], **text}


def qwen_image21() -> dict[str, Any]:
    is_image = (torch.arange(512 + 64 * 64 // 4) >= 512)[None]  # the network reads its values
    text = {"encoder_hidden_states": blank(1, 512, 4096), "img_mask": is_image}
    return {"hidden_states": blank(1, 4096, 64), "timestep": blank(1), "img_shapes": [[(1, 64, 64)]], **text}


def krea2() -> dict[str, Any]:
    text = {"encoder_hidden_states": blank(1, 512, 12, 2560), "position_ids": blank(512 + 4096, 3)}
    return {"hidden_states": blank(1, 4096, 64), "timestep": blank(1), **text}


# by family, or by name where checkpoints of a family take other inputs
INPUTS: dict[str, Callable[[], dict[str, Any]]] = {
    **{
        "sd3": sd3,
        "sana": sana,
        "flux": flux,
        "longcat": longcat,
        "pixart": pixart,
        "wan": wan,
        "wan22-5b": wan22,
        "cogvideox": cogvideox,
        "sd15": sd15,
        "sdxl": sdxl,
    },
    **{"z-image": z_image, "flux2-klein": klein, "flux2-klein-base-9b": lambda: klein(12288), "chroma": chroma},
    **{"qwen-image": qwen_image, "qwen-image-2.1": qwen_image21},
    **{"krea2": krea2, "flux2": lambda: {**klein(15360), "guidance": blank(1)}},
}
# the fast tier compares the same figures with those of a few blocks (test_plan.py); here all blocks are counted
FAST = {"sana-600m"}


def marked(name: str) -> Any:
    return pytest.param(name, marks=[pytest.mark.slow] if name not in FAST else [])


@pytest.mark.parametrize("name", [marked(row.name) for row in PORTED])
def test_work_of_one_forward_is_counted_on_the_real_network(name: str) -> None:
    real = REAL_CONFIGURATIONS[name]
    row = next(row for row in PORTED if row.name == name)
    network_class = getattr(importlib.import_module("diffusers"), real.network_class)
    component = "unet" if "unet" in real.components else "transformer"
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = network_class.from_config(real.components[component]).eval()
    with torch.no_grad(), KnownMasks(), FlopCounterMode(display=False) as counter:
        network(**INPUTS.get(name, INPUTS[row.family])(), return_dict=False)
    assert counter.get_total_flops() / 1e12 == pytest.approx(row.teraflop, abs=5e-4)
