"""Merge LoRAs into the components of a pipeline: ``backbone.lora``, in order, before anything else sees them."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.backbones.lora_file import Factors, content, find_lora, read_lora
from fewstep.backbones.lora_source import LayerFactors, LoraSource
from fewstep.backbones.protocol import BackboneConfig
from fewstep.backbones.using import quiet_imports
from fewstep.errors import ConfigError, shown


class PipelineLoras:
    """The LoRAs of one teacher, read anew whenever they are needed, so that none stays in memory beside the network.

    Args:
        sources: What the settings name, in order.
        model: Named by errors.
        pipeline_class, component: Of diffusers, and its name of the network.
        known: Every component that the pipeline has.
        network: Without weights: it tells the layers and their shapes.
        setting: Where the sources come from, as a message says it.
    """

    def __init__(
        self,
        sources: Sequence[LoraSource],
        *,
        model: str,
        pipeline_class: str,
        component: str,
        known: Collection[str],
        network: nn.Module,
        setting: str,
    ) -> None:
        with quiet_imports():
            import diffusers

            self._pipeline: type[Any] = getattr(diffusers, pipeline_class)
        self.sources = tuple(sources)
        self._model, self._component, self._network, self._setting = model, component, network, setting
        self._known = {component, *known}

    def read(self) -> list[tuple[LoraSource, Factors]]:
        """Every LoRA's factors, those of the network known to fit it.

        Raises:
            ConfigError: One is not found, is no LoRA, or was made for another model.
            CheckpointError: A file is damaged.
        """
        return [(source, self._read(source)) for source in self.sources]

    def components(self) -> set[str]:
        """Names of the pipeline's components that any of them changes."""
        return {name for source in self.sources for name in self._read(source)}

    def merge(self, parts: Mapping[str, nn.Module]) -> None:
        """Add every LoRA to parts of the pipeline, in place, layer by layer.

        Args:
            parts: By the pipeline's names; what a LoRA says of components that are not among them is left to others.
        """
        for source, factors in self.read():
            for name in factors.keys() & parts.keys():
                _add(self._placed(source, factors[name], parts[name]), parts[name], source.scale)

    def text_identity(self) -> list[Any]:
        """What the LoRAs do to the text encoders: content and scale of each that changes them; empty if none does."""
        told: list[Any] = []
        for source, factors in self.read():
            digest = hashlib.blake2b(digest_size=16)
            encoders = {name: own for name, own in factors.items() if name != self._component}
            for name, own in sorted(encoders.items()):
                digest.update(name.encode())
                for part in content(own):
                    digest.update(part)
            if encoders:
                told.append([digest.hexdigest(), source.scale])
        return told

    def _read(self, source: LoraSource) -> Factors:
        factors = read_lora(
            source,
            pipeline=self._pipeline,
            component=self._component,
            network_config=dict(self._network.config),  # type: ignore[arg-type]
            layers=[name.removesuffix(".weight") for name, _ in self._network.named_parameters()],
        )
        for name in sorted(factors.keys() - self._known):
            raise ConfigError(
                f"{self._setting} names {source.path}, which has factors for the {name}, but {self._model} has none. "
                "Give a LoRA for this model, or the model with that part."
            )
        if self._component in factors:
            factors[self._component] = self._placed(source, factors[self._component], self._network)
        return factors

    def _placed(
        self, source: LoraSource, factors: Mapping[str, LayerFactors], module: nn.Module
    ) -> dict[str, LayerFactors]:
        """The factors by the module's own names of its layers; every one has its place, or the LoRA is refused."""
        weights = dict(module.named_parameters())
        placed, strangers, misfits = {}, [], []
        for layer, own in factors.items():
            name = _own_name(layer, weights)
            if name is None:
                strangers.append(layer)
            elif not _fits(own, weights[f"{name}.weight"], weights.get(f"{name}.bias")):
                misfits.append(layer)
            else:
                placed[name] = own
        for wrong, fault in ((strangers, "are no layers"), (misfits, "have another shape than the layers")):
            if wrong:
                raise ConfigError(
                    f"{self._setting} names {source.path}, but {len(wrong)} of its {len(factors)} layers {fault} of "
                    f"the {type(module).__name__} of {self._model}, first {shown(wrong[0])}: it was made for another "
                    "model. Give a LoRA for this one, or leave it out."
                )
        return placed


def _own_name(layer: str, weights: Mapping[str, Tensor]) -> str | None:
    """A layer's name in this version of the libraries: CLIP's text model lost a level of names."""
    names = (layer, layer.removeprefix("text_model."), f"text_model.{layer}")
    return next((name for name in names if f"{name}.weight" in weights), None)


def _fits(own: LayerFactors, weight: Tensor, bias: Tensor | None) -> bool:
    up, down = own.up.shape, own.down.shape
    product = (up[0], *down[1:]) if prod(up[2:]) == 1 and up[1] == down[0] else ()
    same = product == tuple(weight.shape) or (prod(product[2:]) == 1 and product[:2] == tuple(weight.shape[:2]))
    size_fits = same and prod(product) == weight.numel()
    return size_fits and (own.bias is None or (bias is not None and own.bias.shape == bias.shape))


@torch.no_grad()
def _add(factors: Mapping[str, LayerFactors], module: nn.Module, scale: float) -> None:
    weights = dict(module.named_parameters())
    for name, own in factors.items():
        weight = weights[f"{name}.weight"]
        change = scale * own.scaling * (own.up.flatten(1) @ own.down.flatten(1))
        # in float32 whatever the weights are: a small change would be lost in their precision twice
        weight.copy_((weight.float() + change.view(weight.shape).to(weight.device)).to(weight.dtype))
        if own.bias is not None:
            bias = weights[f"{name}.bias"]
            bias.copy_((bias.float() + scale * own.scaling * own.bias.to(bias.device)).to(bias.dtype))


def teacher_files(config: BackboneConfig) -> dict[str, Path]:
    """The one file of weights and the LoRAs, by the settings that name them.

    Raises:
        ConfigError: A LoRA is not there.
    """
    files = {f"backbone.lora[{number}]": find_lora(source) for number, source in enumerate(config.lora)}
    return files if config.components is None else {"backbone.model": Path(config.model), **files}
