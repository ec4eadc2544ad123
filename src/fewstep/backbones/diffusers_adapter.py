"""What every backbone around a diffusers pipeline has in common: loading, sizes, decoding, export.

A family adds its clock, how its network is asked and how its pipeline embeds prompts.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.backbones.component_weights import fetch_pipeline, load_component, load_start, part_class
from fewstep.backbones.configurations import pipeline_parts
from fewstep.backbones.finite import require_finite
from fewstep.backbones.lora_merge import PipelineLoras
from fewstep.backbones.one_file import OneFile, is_one_file, require_usable_file
from fewstep.backbones.pipeline_folder import write_pipeline_folder
from fewstep.backbones.protocol import BackboneConfig, LayerFactors, LoraSource, ModelAdapter
from fewstep.backbones.source import loading
from fewstep.core.conditioning import PromptTensor
from fewstep.errors import ConfigError, shown

_CLIP_TOKENS = 77
"""Of every published CLIP."""
# some networks turn a width of the first names into one of the last
_WIDTHS = ("caption_channels", "joint_attention_dim", "cross_attention_dim", "text_dim", "text_embed_dim")


class DiffusersAdapter(ModelAdapter):
    """The questions of :class:`ModelAdapter` whose answer is the same for most pipelines."""

    merges_lora = True
    network_class: ClassVar[str]
    vae_class: ClassVar[str] = "AutoencoderKL"
    latents_have_statistics: ClassVar[bool] = False
    """The VAE's configuration has a mean and a deviation per channel instead of one scale."""
    vae_has_frames: ClassVar[bool] = False
    """The VAE is one of videos, of which a picture is one frame."""
    encoder_prefixes: ClassVar[Mapping[str, Sequence[str]] | None] = None
    """How the names of each text encoder begin in files of the original layout; None where those are not read."""
    pipeline_unit: ClassVar[int] = 1
    """The pipeline takes multiples of this many pixels, whatever its VAE."""
    default_latent_side: ClassVar[int] = 128
    """Of the pipeline's own default picture, in latents, where the network's configuration does not say it."""

    def __init__(self, config: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(config, components)
        self.network_config = self.component(components, self.network_component, model=config.origin)
        self.vae_config = self.component(components, "vae", model=config.origin)
        if not self.latents_have_statistics:
            _require_plain_latents(self.vae_config, model=config.origin)
        if config.components is not None and self.encoder_prefixes is None:
            raise ConfigError(
                f"backbone.model is {config.model}, but the backbone {self.kind} reads no files in an original layout; "
                "give the model as a diffusers folder."
            )
        for height, width in ((config.height, config.width), *config.sizes):
            self.latent_shape(height, width)  # a size that does not fit is an error before anything is loaded

    @classmethod
    def default_config(
        cls, model: str, revision: str | None, components: Mapping[str, Mapping[str, Any]]
    ) -> BackboneConfig:
        # not every network has a size of its own, and some may be trained at two numbers
        stated = cls.component(components, cls.network_component, model=model).get("sample_size")
        latents = stated if isinstance(stated, int) else cls.default_latent_side
        side = latents * cls.vae_factor(cls.component(components, "vae", model=model))
        return cls.config_class(kind=cls.kind, model=model, revision=revision, height=side, width=side)

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

    @classmethod
    def vae_factor(cls, vae: Mapping[str, Any]) -> int:
        """Pixels along one side of a latent."""
        return int(2 ** (len(vae["block_out_channels"]) - 1))

    @property
    def patch_size(self) -> int:
        """Latents along one side of an image token."""
        return int(self.network_config["patch_size"]) if "patch_size" in self.network_config else 1

    @property
    def latent_channels(self) -> int:
        return int(self.network_config["in_channels"])

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        factor = self.vae_factor(self.vae_config)
        unit = math.lcm(self.pipeline_unit, factor * self.patch_size)
        if height % unit or width % unit:
            raise ConfigError(
                f"{height} x {width} pixels do not fit {self.config.model}: "
                f"height and width must be multiples of {unit}; the nearest below are {height // unit * unit} x "
                f"{width // unit * unit} (backbone.height, backbone.width)."
            )
        return self.latent_channels, height // factor, width // factor

    @property
    def declared_tokens(self) -> int | None:
        """``backbone.max_sequence_length``, where the family's config has one; its pipeline's call takes it."""
        stated = getattr(self.config, "max_sequence_length", None)
        return None if stated is None else int(stated)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens that every prompt is padded to: as many as are declared, or as CLIP takes."""
        return self.clip_tokens if self.declared_tokens is None else self.declared_tokens

    @property
    def clip_tokens(self) -> int:
        """Tokens of the first text encoder, a CLIP, whose configuration not every description of a model holds."""
        return int(self.components.get("text_encoder", {}).get("max_position_embeddings", _CLIP_TOKENS))

    def prompt_shapes(self) -> Mapping[str, PromptTensor]:
        """One row of numbers for each token, as wide as the network takes it; families with more override it."""
        stated = (self.network_config.get(key) for key in _WIDTHS)
        width = next((number for number in stated if isinstance(number, int)), None)
        if width is None:
            raise ConfigError(
                f"The {self.network_component} of {self.config.model} does not say how wide the embeddings of prompts "
                f"are ({', '.join(_WIDTHS)}); its adapter {type(self).__name__} has to, in prompt_shapes()."
            )
        return {"prompt_embeds": PromptTensor((self.num_prompt_tokens, width))}

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
        parts = pipeline_parts(self.components["model_index"])
        folder, others = fetch_pipeline(origin, self.config.revision, parts, dtype, given={*given, *inside})
        with loading(origin, self.config.revision, f"the pipeline {origin}"):
            pipeline = pipeline_class.from_pretrained(folder, dtype=dtype, **given, **inside, **others)
        self._merge({name: part for name, part in pipeline.components.items() if name not in given})
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @torch.no_grad()
    def decode(self, vae: nn.Module, x0: Float[Tensor, "b *latent"]) -> Float[Tensor, "b 3 *size"]:
        require_finite([x0], model=self.config.model, parts={"network": None})
        latents = self._vae_latents(vae, x0.float()).to(next(vae.parameters()).dtype)
        if self.vae_has_frames:
            latents = latents.unsqueeze(2)
        pixels = vae.decode(latents, return_dict=False)[0]  # type: ignore[operator]
        if self.vae_has_frames:
            pixels = pixels[:, :, 0]
        require_finite([pixels], model=self.config.model, parts={"VAE": vae})
        scaled: Tensor = (pixels.float() / 2 + 0.5).clamp(0, 1)
        return scaled

    def call_kwargs(self, sigmas: Sequence[float]) -> dict[str, Any]:
        return {
            "num_inference_steps": len(sigmas),
            "sigmas": [float(sigma) for sigma in sigmas],
            self.guidance.argument: self.guidance.off,
            "height": self.config.height,
            "width": self.config.width,
            **({} if self.declared_tokens is None else {"max_sequence_length": self.declared_tokens}),
        }

    def load_kwargs(self) -> dict[str, Any]:
        return {}

    def save_pipeline(self, network: nn.Module, folder: Path, sigmas: Sequence[float]) -> None:
        write_pipeline_folder(
            folder,
            network,
            self.student_scheduler(sigmas),
            model=self.config.origin,
            revision=self.config.revision,
            model_index=self.student_index(sigmas),
            network_component=self.network_component,
            changed=self._changed(network.dtype),  # type: ignore[arg-type]
        )

    def student_index(self, sigmas: Sequence[float]) -> Mapping[str, Any]:
        """The ``model_index.json`` that an exported student has, before its network and scheduler are named."""
        return self.components["model_index"]

    def network_without_weights(self) -> nn.Module:
        """The network on the meta device, in eval mode, frozen."""
        network_class = part_class(("diffusers", self.network_class), place=f"the network of {self.config.model}")
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # diffusers tells which keys of a configuration it does not know
            network: nn.Module = network_class.from_config(dict(self.network_config))
        return network.eval().requires_grad_(False)

    def require_usable(self) -> None:
        self._inside()
        if self.config.lora:
            self._loras().read()

    def text_identity(self) -> Mapping[str, Any]:
        told: dict[str, Any] = {"lora": self._loras().text_identity()} if self.config.lora else {}
        if self._one_file is not None:
            told["one_file"] = self._one_file.content(tuple(self.encoder_prefixes or ()))
        return {name: value for name, value in told.items() if value}

    def get_text_encoders(self, pipeline: Any) -> list[nn.Module]:
        return _present(pipeline, "text_encoder")

    def get_tokenizers(self, pipeline: Any) -> list[Any]:
        return _present(pipeline, "tokenizer")

    def token_limits(self, pipeline: Any) -> list[int]:
        # where there are several, the last is the one that takes long prompts
        limits = super().token_limits(pipeline)
        return limits if self.declared_tokens is None else [*limits[:-1], self.declared_tokens]

    def _loras(self, sources: Sequence[LoraSource] | None = None, *, setting: str = "backbone.lora") -> PipelineLoras:
        return PipelineLoras(
            self.config.lora if sources is None else sources,
            setting=setting,
            model=self.config.model,
            pipeline_class=self.pipeline_class,
            component=self.network_component,
            known=pipeline_parts(self.components["model_index"]).keys() - self.load_kwargs().keys(),
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
        others = pipeline_parts(self.components["model_index"]).keys() - changed - {"scheduler"}
        pipeline = self.load_pipeline(dtype=dtype, **dict.fromkeys(others))
        return {name: pipeline.components[name] for name in sorted(changed)}

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
        parts = pipeline_parts(self.components["model_index"])
        return [name for name in self._one_file.held if name in parts and name not in self.load_kwargs()]

    def _load_inside(self, component: str, dtype: torch.dtype) -> nn.Module:
        assert self._one_file is not None
        library, class_name = pipeline_parts(self.components["model_index"])[component]
        if component == self.network_component:
            class_name = self.network_class
        kind = part_class((library, class_name), place=f"the {component} of {self.config.origin}")
        like = self.network_without_weights() if component == self.network_component else None
        return self._one_file.load(component, kind, like=like, dtype=dtype)

    def _vae_latents(self, vae: nn.Module, x0: Float[Tensor, "b *latent"]) -> Float[Tensor, "b *vae"]:
        """What the VAE decodes, of the latents that the network sees."""
        if self.latents_have_statistics:
            mean, std = (x0.new_tensor(self.vae_config[f"latents_{name}"]) for name in ("mean", "std"))
            per_channel = (-1, *[1] * (x0.ndim - 2))
            return x0 * std.view(per_channel) + mean.view(per_channel)
        shift = self.vae_config.get("shift_factor")  # not every VAE class knows one, and null is none
        return x0 / float(self.vae_config["scaling_factor"]) + (0.0 if shift is None else float(shift))

    def _load(self, component: str, class_name: str, dtype: torch.dtype) -> nn.Module:
        if component in self._inside():
            return self._load_inside(component, dtype)
        return load_component(self.config.origin, self.config.revision, component, class_name, dtype)


def scheduler_of(components: Mapping[str, Mapping[str, Any]], *, model: str) -> Mapping[str, Any]:
    """The scheduler's configuration; ConfigError when there is none."""
    if "scheduler" not in components:
        raise ConfigError(
            f"{model} has no scheduler, so nothing tells the noise levels that its network was trained on. "
            "Get the model again, or copy the original's scheduler folder."
        )
    return components["scheduler"]


def _require_plain_latents(vae: Mapping[str, Any], *, model: str) -> None:
    given = [name for name in ("latents_mean", "latents_std") if vae.get(name) is not None]
    if given:
        raise ConfigError(
            f"The VAE of {model} normalises latents by {given[0]}, as retrainings of SDXL on another noise schedule "
            "do; this backbone knows the plain scaling_factor and shift_factor only. Use the original checkpoint's VAE."
        )


def _present(pipeline: Any, name: str) -> list[Any]:
    """The pipeline's components ``name``, ``name_2``, ``name_3`` that there are."""
    parts = (pipeline.components.get(key) for key in (name, f"{name}_2", f"{name}_3"))
    return [part for part in parts if part is not None]
