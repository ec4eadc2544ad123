"""What leaving masked text out saves: python -m benchmarks.masked_text [--tokens 20] [--layers 4] [--only TEXT]

Networks of the released models' real widths with fewer layers and random weights answer about the same batch, in turn
(A B A B) in one process, on one thread: with all 300 text tokens, and with those that the batch's prompts have. Prints
one JSON object of CPU seconds and their ratios, of a forward, and of a forward with its backward.
"""

import argparse
import json
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.training import rounded
from fewstep.backbones.ragged import without_padding
from fewstep.backbones.using import quiet_imports
from fewstep.core.conditioning import Conditioning
from fewstep.planning.meta_networks import shipped

_ALL = 300
CASES: Mapping[str, tuple[str, str, int]] = {
    "sana-600m, 512 px": ("Efficient-Large-Model/Sana_600M_1024px_diffusers", "SanaTransformer2DModel", 16),
    "sana-600m, 1024 px": ("Efficient-Large-Model/Sana_600M_1024px_diffusers", "SanaTransformer2DModel", 32),
    "pixart-sigma, 512 px": ("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", "PixArtTransformer2DModel", 64),
}
"""Models, classes of their networks, and sides of a latent."""


def measure(case: str, *, tokens: int, layers: int, repeats: int, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds of one sample with all text and with ``tokens`` of it, behind one pass for warmth each."""
    model, name, side = CASES[case]
    network = _network(model, name, {"num_layers": layers, "sample_size": side, **changes})
    whole = _prompt(network, tokens)
    told = {"all": whole, "left": without_padding(whole)[0]}
    latents = torch.randn(1, network.config.in_channels, side, side)  # type: ignore[union-attr]
    seconds = {part: {"forward": 0.0, "forward_and_backward": 0.0} for part in told}
    for turn in range(repeats + 1):
        for part, cond in told.items():
            for kind in ("forward", "forward_and_backward"):
                began = time.process_time()
                with torch.set_grad_enabled(kind != "forward"):
                    answer = _answer(network, latents, cond)
                if kind != "forward":
                    answer.square().mean().backward()  # type: ignore[no-untyped-call]
                seconds[part][kind] += (time.process_time() - began) / repeats if turn else 0.0
    counts = {part: cond.tensors["prompt_embeds"].shape[1] for part, cond in told.items()}
    ratios = {kind: seconds["all"][kind] / seconds["left"][kind] for kind in seconds["all"]}
    return {"tokens": counts, "cpu_seconds": seconds, "ratio": ratios}


def _network(model: str, name: str, changes: Mapping[str, Any]) -> nn.Module:
    with quiet_imports():
        import diffusers
    components = shipped(model)
    assert components is not None
    torch.manual_seed(0)
    made: nn.Module = getattr(diffusers, name).from_config({**components["transformer"], **changes}).eval()
    return made


def _prompt(network: nn.Module, tokens: int) -> Conditioning:
    text = torch.randn(1, _ALL, network.config.caption_channels)  # type: ignore[union-attr]
    mask = (torch.arange(_ALL) < tokens).long().unsqueeze(0)
    return Conditioning({"prompt_embeds": text, "prompt_attention_mask": mask})


def _answer(network: nn.Module, latents: Tensor, cond: Conditioning) -> Tensor:
    sizes = {"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}
    answer: Tensor = network(
        latents,
        timestep=torch.tensor([500]),
        encoder_hidden_states=cond.tensors["prompt_embeds"],
        encoder_attention_mask=cond.tensors["prompt_attention_mask"],
        return_dict=False,
        **(sizes if type(network).__name__.startswith("PixArt") else {}),
    )[0]
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=20, help="of the prompt")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    given = {name: getattr(arguments, name) for name in ("tokens", "layers", "repeats")}
    found = {case: measure(case, **given, changes={}) for case in CASES if arguments.only in case}
    print(json.dumps(rounded(given | {"cases": found}), indent=1))


if __name__ == "__main__":
    main()
