"""The graph with which ComfyUI draws a student: its loaders, the factors at strength 1, the student's own grid."""

from collections.abc import Sequence
from typing import Any

from fewstep.backbones.comfyui import ComfyUIFamily
from fewstep.backbones.facts import ModelFacts
from fewstep.backbones.protocol import ModelAdapter

_LOADERS = {1: "CLIPLoader", 2: "DualCLIPLoader", 3: "TripleCLIPLoader"}
_Graph = dict[str, dict[str, Any]]


def workflow(adapter: ModelAdapter, known: ComfyUIFamily, facts: ModelFacts, *, lora: str, prompt: str) -> _Graph:
    """The graph that draws one picture, as ComfyUI's API takes it and its page opens it.

    The names of the teacher's files are guesses: who opens the graph chooses those that are there.

    Args:
        known: The family in ComfyUI.
        facts: What ``fewstep.json`` says of the student.
        lora: Name of the file of factors.
    """
    graph = _loaders(known, model=adapter.config.model.rstrip("/").rpartition("/")[2])
    text_at, vae_at = (["2", 0], ["3", 0]) if known.text_encoders else (["1", 1], ["1", 2])
    size = {"width": adapter.config.width, "height": adapter.config.height, "batch_size": 1}
    frames = {} if adapter.frames is None else {"length": adapter.frames}
    graph |= {
        "4": _node("LoraLoaderModelOnly", model=["1", 0], lora_name=lora, strength_model=1.0),
        "5": _node("CLIPTextEncode", text=prompt, clip=text_at),
        "6": _node("ConditioningZeroOut", conditioning=["5", 0]),
        "7": _node(known.latent, **size, **frames),
        "8": _node("KSamplerSelect", sampler_name=sampler_name(facts)),
        "9": _node("ManualSigmas", sigmas=_listed(known.sigmas(facts.sigmas or ()))),
        "10": _node(
            "SamplerCustom",
            **{"model": ["4", 0], "positive": ["5", 0], "negative": ["6", 0], "latent_image": ["7", 0]},
            **{"sampler": ["8", 0], "sigmas": ["9", 0], "cfg": 1.0, "add_noise": True, "noise_seed": 0},
        ),
        "11": _node("VAEDecode", samples=["10", 0], vae=vae_at),
        "12": _node("SaveImage", images=["11", 0], filename_prefix=lora.removesuffix(".safetensors")),
    }
    if adapter.guidance.embedded:
        graph["13"] = _node("FluxGuidance", conditioning=["5", 0], guidance=facts.guidance_scale)
        graph["10"]["inputs"]["positive"] = ["13", 0]
    return graph


def sampler_name(facts: ModelFacts) -> str:
    """What ComfyUI calls the student's step from one noise level to the next."""
    return "euler" if facts.step == "euler" else "lcm"


def _loaders(known: ComfyUIFamily, *, model: str) -> _Graph:
    file = f"{model.removesuffix('.safetensors')}.safetensors"
    if not known.text_encoders:
        return {"1": _node("CheckpointLoaderSimple", ckpt_name=file)}
    numbers = [""] if known.text_encoders == 1 else range(1, known.text_encoders + 1)
    texts = {f"clip_name{number}": f"text_encoder{number}.safetensors" for number in numbers}
    kind = {"type": known.text_type} if known.text_type else {}
    return {
        "1": _node("UNETLoader", unet_name=file, weight_dtype="default"),
        "2": _node(_LOADERS[known.text_encoders], **texts, **kind),
        "3": _node("VAELoader", vae_name="vae.safetensors"),
    }


def _listed(sigmas: Sequence[float]) -> str:
    return ", ".join(f"{sigma:.9g}" for sigma in sigmas)


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}
