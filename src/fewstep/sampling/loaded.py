"""Models opened for drawing: every part in memory, or text encoders, network and VAE one after the other."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewstep.backbones.facts import ModelFacts
from fewstep.backbones.lora_source import LoraSource
from fewstep.backbones.protocol import ModelAdapter
from fewstep.backbones.refused import few_steps
from fewstep.backbones.registry import create_model_adapter
from fewstep.backbones.source import open_checkpoint
from fewstep.backbones.stock import pipeline_class
from fewstep.devices import require_device
from fewstep.errors import ConfigError
from fewstep.sampling.embedding import PromptEmbedder
from fewstep.sampling.generate import DrawingModel


class TextToImage(DrawingModel):
    """A backbone with its weights, ready to draw.

    Args:
        adapter: The backbone.
        network: Its denoising network, student or teacher, in eval mode.
        pipeline: A diffusers pipeline that holds the text encoders and the VAE; its network is not used.
        facts: What the folder says about its sampling, when it says something.
        few_steps: Steps of a model that is known to be distilled, though its folder does not say so.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        network: nn.Module,
        pipeline: Any,
        *,
        facts: ModelFacts | None = None,
        few_steps: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(adapter, type(pipeline), facts=facts, few_steps=few_steps, device=device)
        self.network = network.to(device)
        self.pipeline = pipeline.to(device)
        self.embedder = PromptEmbedder(adapter, self.pipeline, self.device)

    @property
    def vae(self) -> nn.Module:
        vae: nn.Module = self.pipeline.vae
        return vae

    def _text_encoders(self) -> PromptEmbedder:
        return self.embedder

    def _denoiser(self) -> nn.Module:
        return self.network

    def _decoder(self) -> nn.Module:
        return self.vae


class LoadedInTurn(DrawingModel):
    """Text encoders, network and VAE are read one after the other, each let go before the next comes.

    Every call of :meth:`images` reads each of them once: time for memory, of the device and of the machine.
    """

    dtype: torch.dtype = torch.float32
    """Of the network and the text encoders."""

    def _text_encoders(self) -> PromptEmbedder:
        let_go()
        without = {self.adapter.network_component: None, "vae": None}
        pipeline = self.adapter.load_pipeline(dtype=self.dtype, **without)
        return PromptEmbedder(self.adapter, pipeline.to(self.device), self.device)

    def _denoiser(self) -> nn.Module:
        let_go()
        return self.adapter.load_network(dtype=self.dtype).to(self.device)

    def _decoder(self) -> nn.Module:
        let_go()
        return self.adapter.load_vae().to(self.device)


def let_go() -> None:
    """Give back what nobody holds any more: what holds itself in a circle too, and what the device keeps for later."""
    gc.collect()
    torch.cuda.empty_cache()


def open_adapter(
    model: str | Path,
    *,
    lora: Sequence[LoraSource] = (),
    height: int | None = None,
    width: int | None = None,
    frames: int | None = None,
) -> ModelAdapter:
    """The adapter of a model that is drawn with; no weight of the model is loaded.

    Args:
        lora: Merged into whatever is loaded, in order; read and compared with the model's layers here.
        height, width: In pixels; None is the model's own.
        frames: Of a model of videos; None is its own number.

    Raises:
        ConfigError: The model cannot be opened, does not draw such a size, or a LoRA is not one of it.
    """
    adapter = create_model_adapter(model, as_teacher=False)
    if lora and not adapter.merges_lora:
        raise ConfigError(
            f"The backbone {adapter.kind} of {model} merges no LoRA into what it loads; leave the LoRA out."
        )
    if frames is not None and adapter.frames is None:
        raise ConfigError(f"{model} makes pictures, so frames={frames} has nothing to set; leave it out.")
    sized = adapter.at_size(height or adapter.config.height, width or adapter.config.width, frames=frames)
    sized.latent_shape(sized.config.height, sized.config.width)  # what does not fit is told here
    if lora:
        sized.lora_setting = "lora"
        sized.config = sized.config.model_copy(update={"lora": tuple(lora)})
        sized.require_usable()
    return sized


def load_model(
    model: str | Path,
    device: torch.device | str = "auto",
    *,
    dtype: torch.dtype = torch.float32,
    lora: Sequence[LoraSource] = (),
    height: int | None = None,
    width: int | None = None,
    frames: int | None = None,
) -> TextToImage:
    """Open a pipeline folder, a repository id or ``fewstep:digits`` for drawing.

    A folder without ``fewstep.json`` works as well: the adapter follows from its pipeline class.

    Args:
        device: A torch device, or ``auto`` for the fastest one there is.
        dtype: Of the network and the text encoders; the VAE stays in float32.
        lora, height, width, frames: As :func:`open_adapter` has them.
    """
    adapter = open_adapter(model, lora=lora, height=height, width=width, frames=frames)
    return with_network(
        adapter,
        adapter.load_network(dtype=dtype),
        device,
        dtype=dtype,
        facts=open_checkpoint(str(model)).facts,
        few_steps=few_steps(str(model)),
    )


def with_network(
    adapter: ModelAdapter,
    network: nn.Module,
    device: torch.device | str = "auto",
    *,
    dtype: torch.dtype = torch.float32,
    facts: ModelFacts | None = None,
    few_steps: int | None = None,
) -> TextToImage:
    """A network that is in memory already, with the other parts of its backbone; the arguments are as above."""
    adapter.compute_dtype = dtype
    vae = adapter.load_vae()
    pipeline = adapter.load_pipeline(dtype=dtype, **{adapter.network_component: None, "vae": vae})
    return TextToImage(adapter, network, pipeline, facts=facts, few_steps=few_steps, device=require_device(str(device)))


def load_in_turn(
    model: str | Path,
    device: torch.device | str = "auto",
    *,
    dtype: torch.dtype = torch.float32,
    lora: Sequence[LoraSource] = (),
    height: int | None = None,
    width: int | None = None,
    frames: int | None = None,
) -> LoadedInTurn:
    """:func:`load_model` for little memory: nothing is loaded before it is needed, nor kept afterwards."""
    checkpoint = open_checkpoint(str(model))
    opened = LoadedInTurn(
        open_adapter(model, lora=lora, height=height, width=width, frames=frames),
        pipeline_class(checkpoint),
        facts=checkpoint.facts,
        few_steps=few_steps(str(model)),
        device=require_device(str(device)),
    )
    opened.dtype = opened.adapter.compute_dtype = dtype
    return opened
