"""One model, loaded, drawing pictures; and how many network calls each picture cost."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from fewstep.backbones.source import open_checkpoint
from fewstep.backbones.stock import load_stock
from fewstep.devices import DTYPES
from fewstep.evaluation.models import ModelEntry, ModelSpec, Sampling
from fewstep.evaluation.stock import draw_stock
from fewstep.sampling.generate import TextToImage, load_generator


class CallCount:
    """Counts the samples that go through a network; guidance shows as it is, twice as many."""

    def __init__(self, network: nn.Module) -> None:
        self.samples = 0
        self._handle = network.register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.ndim > 1)
        self.samples += len(first)

    def stop(self) -> None:
        self._handle.remove()


class Drawer(ABC):
    """A model that is ready to draw."""

    def __init__(self, sampling: Sampling, network: nn.Module) -> None:
        self.sampling = sampling
        self._network = network

    def draw(self, prompts: Sequence[str], seeds: Sequence[int], *, steps: int) -> tuple[list[Image.Image], float]:
        """Draw one picture per prompt and seed.

        Args:
            steps: The sampling's own number, or another one for a comparison of numbers of steps.

        Returns:
            The pictures, and the network calls that each of them cost.
        """
        count = CallCount(self._network)
        try:
            images = self._draw(prompts, seeds, steps)
        finally:
            count.stop()
        return images, count.samples / len(images)

    @abstractmethod
    def _draw(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> list[Image.Image]: ...


class OwnDrawer(Drawer):
    """Draws with our Euler loop, on the grid the model was made for."""

    def __init__(self, sampling: Sampling, generator: TextToImage) -> None:
        super().__init__(sampling, generator.network)
        self._generator = generator

    def _draw(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> list[Image.Image]:
        stated = self.sampling.sigmas if steps == self.sampling.steps else None
        return self._generator.images(
            prompts,
            seeds,
            steps=steps,
            sigmas=stated,
            guidance_scale=self.sampling.guidance_scale,
            batch=len(prompts),
        )


class StockDrawer(Drawer):
    """Draws with the pipeline that the folder names, and its scheduler."""

    def __init__(self, sampling: Sampling, pipeline: Any, model: str) -> None:
        network = getattr(pipeline, "transformer", None)
        super().__init__(sampling, pipeline.unet if network is None else network)
        self._pipeline = pipeline
        self._model = model

    @torch.no_grad()
    def _draw(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> list[Image.Image]:
        chosen = self.sampling
        return draw_stock(
            self._pipeline,
            self._model,
            prompts,
            seeds,
            steps=steps,
            sigmas=chosen.sigmas if steps == chosen.steps else None,
            guidance_scale=chosen.guidance_scale,
            height=chosen.height,
            width=chosen.width,
        )


def open_drawer(spec: ModelSpec, entry: ModelEntry, device: torch.device, *, prompts: Sequence[str] = ()) -> Drawer:
    """Load a model's weights.

    Args:
        prompts: All of the plan, whichever are left to be drawn: each is embedded once, among the same neighbours.
    """
    sampling = entry.sampling
    if sampling.sampler == "own":
        generator = load_generator(spec.model, device, dtype=DTYPES[sampling.dtype])
        size = {"height": sampling.height, "width": sampling.width}
        generator.adapter.config = generator.adapter.config.model_copy(update=size)
        generator.expect(prompts)
        return OwnDrawer(sampling, generator)
    pipeline = load_stock(
        open_checkpoint(spec.model), dtype=DTYPES[sampling.dtype], lora=spec.lora, lora_scale=spec.lora_scale
    )
    return StockDrawer(sampling, pipeline.to(device), spec.model)
