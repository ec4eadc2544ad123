"""The files' side of every backbone around a diffusers pipeline: what is read from a checkpoint, and what is exported.

A checkpoint is a diffusers folder, or one file of weights beside a folder that describes the model; LoRAs may be merged
into what is loaded. An export has one network and scheduler of ours and copies of every other component, file by file:
a text encoder of many gigabytes costs a copy and no memory.
"""

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from fewstep.backbones.component_files import copy_part, fetch_parts, list_files
from fewstep.backbones.component_weights import fetch_pipeline, load_component, load_start, part_class
from fewstep.backbones.configurations import pipeline_parts, without_infinities
from fewstep.backbones.lora_merge import PipelineLoras
from fewstep.backbones.lora_source import LayerFactors, LoraSource
from fewstep.backbones.one_file import OneFile, is_one_file, require_usable_file
from fewstep.backbones.protocol import BackboneConfig, ModelAdapter
from fewstep.backbones.source import MODEL_INDEX, loading, quiet_loading
from fewstep.core.points import Step
from fewstep.errors import ConfigError, shown
from fewstep.files import load_json, write_json


class PipelineFiles(ModelAdapter):
    """The questions of :class:`ModelAdapter` about files, answered for most pipelines."""

    merges_lora = True
    network_class: ClassVar[str]
    vae_class: ClassVar[str] = "AutoencoderKL"
    encoder_prefixes: ClassVar[Mapping[str, Sequence[str]] | None] = None
    """How the names of each text encoder begin in files of the original layout; None where those are not read."""

    def __init__(self, config: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, components)
        self.network_config = self.component(components, self.network_component, model=config.origin)
        self.vae_config = self.component(components, "vae", model=config.origin)
        if config.components is not None and self.encoder_prefixes is None:
            raise ConfigError(
                f"backbone.model is {config.model}, but the backbone {self.kind} reads no files in an original layout; "
                "give the model as a diffusers folder."
            )

    @classmethod
    def component(cls, components: Mapping[str, Mapping[str, Any]], name: str, *, model: str) -> Mapping[str, Any]:
        """One component's configuration, which must be of the class that this backbone drives.

        Raises:
            ConfigError: There is none, or it is of another class.
        """
        wanted = {cls.network_component: cls.network_class, "vae": cls.vae_class}[name]
        if name not in components:
            raise ConfigError(f"{model} has no {name}; a {cls.pipeline_class} needs a {wanted} of that name.")
        found = components[name].get("_class_name")
        if found != wanted:
            raise ConfigError(
                f"The {name} of {model} is a {shown(found, quoted=False)}, but backbone.kind={cls.kind} drives a "
                f"{wanted}. Use a copy of the model with the original {name}."
            )
        return components[name]

    def load_network(self, *, dtype: torch.dtype = torch.float32) -> nn.Module:
        network = self._load(self.network_component, self.network_class, dtype)
        self._merge({self.network_component: network})
        return network

    def load_start(self, model: str, revision: str | None) -> nn.Module:
        like = self.network_without_weights()
        if is_one_file(model):
            require_usable_file(model, self.config.origin)
            kind = part_class(("diffusers", self.network_class), place=f"the network of {model}")
            return self._file(model).load(self.network_component, kind, like=like, dtype=torch.float32)
        return load_start(
            model,
            revision,
            self.network_component,
            self.network_class,
            like=like,
            teacher=self.config.model,
            components=self.components,
        )

    def read_start(self, source: LoraSource) -> Mapping[str, LayerFactors]:
        ((_, factors),) = self._loras((source,), setting="student.init").read()
        encoders = sorted(factors.keys() - {self.network_component})
        if encoders:
            raise ConfigError(
                f"student.init.lora is {source.path}, which has factors for the {encoders[0]}, but student and teacher "
                "read the same embeddings; give a LoRA of the network alone, or put this one into backbone.lora."
            )
        return factors[self.network_component]

    def load_vae(self, *, dtype: torch.dtype = torch.float32) -> nn.Module:
        return self._load("vae", self.vae_class, dtype)

    def load_pipeline(self, *, dtype: torch.dtype = torch.float32, **components: Any) -> Any:
        origin = self.config.origin
        pipeline_class = part_class(("diffusers", self.pipeline_class), place=f"the pipeline {origin}")
        given = {**self.load_kwargs(), **components}
        inside = {name: self._load_inside(name, dtype) for name in self._inside() if name not in given}
        parts = self._parts
        folder, others = fetch_pipeline(origin, self.config.revision, parts, dtype, given={*given, *inside})
        with loading(origin, self.config.revision, f"the pipeline {origin}"):
            pipeline = pipeline_class.from_pretrained(folder, dtype=dtype, **given, **inside, **others)
        self._merge({name: part for name, part in pipeline.components.items() if name not in given})
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def network_without_weights(self) -> nn.Module:
        """The network on the meta device, in eval mode, frozen."""
        network_class = part_class(("diffusers", self.network_class), place=f"the network of {self.config.model}")
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # diffusers tells which keys of a configuration it does not know
            network: nn.Module = network_class.from_config(dict(self.network_config))
        return network.eval().requires_grad_(False)

    def save_pipeline(self, network: nn.Module, folder: Path, sigmas: Sequence[float], *, step: Step = "euler") -> None:
        _write_pipeline_folder(
            folder,
            network,
            self.sampling_scheduler(sigmas, step=step),
            model=self.config.origin,
            revision=self.config.revision,
            model_index=self.student_index(sigmas),
            network_component=self.network_component,
            changed=self._changed(network.dtype),  # type: ignore[arg-type]
        )

    def student_index(self, sigmas: Sequence[float]) -> Mapping[str, Any]:
        """The ``model_index.json`` that an exported student has, before its network and scheduler are named."""
        return self.components["model_index"]

    def require_usable(self) -> None:
        self._inside()
        if self.config.lora:
            self._loras().read()

    def text_identity(self) -> Mapping[str, Any]:
        told: dict[str, Any] = {"lora": self._loras().text_identity()} if self.config.lora else {}
        if self._one_file is not None:
            told["one_file"] = self._one_file.content(tuple(self.encoder_prefixes or ()))
        return {name: value for name, value in told.items() if value}

    def _loras(self, sources: Sequence[LoraSource] | None = None, *, setting: str | None = None) -> PipelineLoras:
        return PipelineLoras(
            self.config.lora if sources is None else sources,
            setting=setting or self.lora_setting,
            model=self.config.model,
            pipeline_class=self.pipeline_class,
            component=self.network_component,
            known=self._parts.keys() - self.load_kwargs().keys(),
            network=self.network_without_weights(),
        )

    def _merge(self, parts: Mapping[str, Any]) -> None:
        """Add the config's LoRAs to freshly loaded components, in place."""
        if self.config.lora:
            self._loras().merge({name: part for name, part in parts.items() if isinstance(part, nn.Module)})

    def _changed(self, dtype: torch.dtype) -> dict[str, nn.Module]:
        """Components other than the network whose files are not those of the checkpoint, loaded as they are now."""
        merged = self._loras().components() if self.config.lora else set()
        changed = {*merged, *self._inside()} - {self.network_component}
        if not changed:
            return {}
        others = self._parts.keys() - changed - {"scheduler"}
        pipeline = self.load_pipeline(dtype=dtype, **dict.fromkeys(others))
        return {name: pipeline.components[name] for name in sorted(changed)}

    @property
    def _parts(self) -> dict[str, tuple[str, str]]:
        return pipeline_parts(self.components["model_index"])

    @cached_property
    def _one_file(self) -> OneFile | None:
        if self.config.components is None or self.encoder_prefixes is None:
            return None
        return self._file(self.config.model)

    def _file(self, path: str) -> OneFile:
        return OneFile(
            path,
            folder=self.config.origin,
            revision=self.config.revision,
            encoders=self.encoder_prefixes or {},
            network=self.network_component,
        )

    def _inside(self) -> list[str]:
        """Components that come from one file instead of the folder that describes the model."""
        if self._one_file is None:
            return []
        return [name for name in self._one_file.held if name in self._parts and name not in self.load_kwargs()]

    def _load_inside(self, component: str, dtype: torch.dtype) -> nn.Module:
        assert self._one_file is not None
        library, class_name = self._parts[component]
        if component == self.network_component:
            class_name = self.network_class
        kind = part_class((library, class_name), place=f"the {component} of {self.config.origin}")
        like = self.network_without_weights() if component == self.network_component else None
        return self._one_file.load(component, kind, like=like, dtype=dtype)

    def _load(self, component: str, class_name: str, dtype: torch.dtype) -> nn.Module:
        if component in self._inside():
            return self._load_inside(component, dtype)
        return load_component(self.config.origin, self.config.revision, component, class_name, dtype)


def _write_pipeline_folder(
    folder: Path,
    network: nn.Module,
    scheduler: Any,
    *,
    model: str,
    revision: str | None,
    model_index: Mapping[str, Any],
    network_component: str,
    changed: Mapping[str, Any] | None = None,
) -> None:
    """Write the pipeline of ``model`` into ``folder`` with another network and scheduler.

    Args:
        folder: An existing empty folder.
        network: A diffusers model; saved in its own dtype as safetensors.
        model_index: The checkpoint's ``model_index.json``.
        changed: Further components that are not those of ``model``, by name.
    """
    changed = changed or {}
    replaced = {network_component, "scheduler", *changed}
    listing = list_files(model, revision)
    copied = {name: part for name, part in pipeline_parts(model_index).items() if name not in replaced}
    source = fetch_parts(listing, revision, copied)
    for name, part in copied.items():
        copy_part(source / name, folder / name, listing, part)
    with quiet_loading(model):
        for name, part in {network_component: network, **changed}.items():
            part.save_pretrained(folder / name, safe_serialization=True)
    _write_scheduler(scheduler, folder / "scheduler")
    written = {network_component: network, "scheduler": scheduler}
    # the network's class too: older checkpoints name one that has since been split
    index = {**model_index, **{name: ["diffusers", type(part).__name__] for name, part in written.items()}}
    index.pop("_name_or_path", None)
    write_json(folder / MODEL_INDEX, dict(sorted(index.items())))


def _write_scheduler(scheduler: Any, folder: Path) -> None:
    """Save a scheduler as JSON that any parser reads: diffusers writes a limit of minus infinity as such."""
    scheduler.save_pretrained(folder)
    file = folder / "scheduler_config.json"
    write_json(file, without_infinities(load_json(file, dict[str, Any], cure="Export again")))
