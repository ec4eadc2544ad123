"""The questions every backbone answers. A port is one subclass of ModelAdapter; the training loop never changes.

Imports no diffusers: methods, training and tests program against this file.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from fewstep.backbones.comfyui import ComfyUIFamily
from fewstep.backbones.guidance import Guidance
from fewstep.backbones.lora_source import LayerFactors, LoraSource
from fewstep.bounds import Name, Pixels, Place
from fewstep.core import flow
from fewstep.core.conditioning import Conditioning, PromptBatch, PromptTensor
from fewstep.core.points import NoisyLatent, Step
from fewstep.errors import ConfigError
from fewstep.section import Section


class BackboneConfig(Section):
    """Which checkpoint a run distils, and at what size. Families with choices of their own subclass it."""

    kind: Name
    model: Place = Field(
        description="Hugging Face repository id, local diffusers folder, or one safetensors file in the original layout"
    )
    components: Place | None = Field(
        default=None,
        description="for one file: the folder or repository with the JSON files and whatever the file lacks",
    )
    revision: Name | None = Field(default=None, description="of the repository")
    height: Pixels = Field(default=1024, description="pixels")
    width: Pixels = Field(default=1024, description="pixels")
    sizes: tuple[tuple[Pixels, Pixels], ...] = Field(
        default=(),
        max_length=64,
        description="height and width of training pictures, one of these each step; none is height x width always",
    )
    allow_distilled: bool = Field(
        default=False, description="accept a checkpoint that looks already distilled; for those that only look it"
    )
    lora: tuple[LoraSource, ...] = Field(
        default=(),
        max_length=100,
        description="merged into the model, in this order, before anything else; the result is the teacher",
    )
    not_about_text: ClassVar[frozenset[str]] = frozenset()
    """A family's own fields that change no prompt embedding."""
    guided: ClassVar[bool] = True
    """Whether the teacher's pictures are meant to be guided: by an empty prompt, or by a scale that it takes in."""

    @property
    def origin(self) -> str:
        """The folder or repository that describes the model."""
        return self.components or self.model

    @property
    def training_sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of the pictures that training draws, in pixels."""
        return self.sizes or ((self.height, self.width),)

    def without_guidance(self) -> str | None:
        """Why the teacher gives no direction of guidance under these choices, and what to set; None when it does."""
        return None


class ModelAdapter(ABC):
    """Everything that differs between backbones: clock, sign, packing, conditioning, file layout.

    An adapter holds facts of one checkpoint (scheduler, VAE constants, sizes) and no weights: the network is an
    argument, because student, teacher and fake score are three weights of one architecture.

    Args:
        config: The ``backbone`` section of a recipe, an instance of ``config_class``.
        components: The checkpoint's JSON files by component name (``scheduler``, ``vae``, ``transformer``, ...);
            the registry reads them without loading a weight.
    """

    kind: ClassVar[str]
    config_class: ClassVar[type[BackboneConfig]] = BackboneConfig
    pipeline_class: ClassVar[str]
    student_pipelines: ClassVar[frozenset[str]] = frozenset()
    """Further classes of diffusers that the folder of an exported student may name."""
    network_component: ClassVar[str] = "transformer"
    block_classes: ClassVar[tuple[str, ...]]
    """Class names of the repeated blocks: the units of sharding and of activation checkpointing."""
    lora_targets: tuple[str, ...]
    """Module name suffixes that take LoRA factors; an adapter may set them from the checkpoint's configuration."""
    frame_rate: int | None = None
    """Frames per second of the videos that it makes, whose latents are (c, t, h, w); None where it makes pictures."""
    merges_lora: ClassVar[bool] = False
    """Whether everything it loads has ``config.lora`` merged into it."""
    comfyui: ClassVar[ComfyUIFamily | None] = None
    """How ComfyUI names its layers and draws it; None where that is not known here."""
    lora_setting: str = "backbone.lora"
    """What the user calls ``config.lora``, for messages."""
    never_trained: tuple[str, ...] = ()
    """Patterns of parameter names that never receive a gradient, though trainable."""

    def __init__(self, config: BackboneConfig, components: Mapping[str, Mapping[str, Any]]) -> None:
        self.config = config
        self.components = components
        self.compute_dtype: torch.dtype = torch.float32

    def at_size(self, height: int, width: int, *, frames: int | None = None) -> Self:
        """The same backbone for pictures of another size, in pixels, on which a shift of its clock may depend.

        Args:
            frames: Of videos; None leaves their number as it is.
        """
        sized = copy.copy(self)
        size = {"height": height, "width": width, "frames": frames}
        sized.config = self.config.model_copy(update={key: value for key, value in size.items() if value is not None})
        return sized

    @classmethod
    def default_config(
        cls, model: str, revision: str | None, components: Mapping[str, Mapping[str, Any]]
    ) -> BackboneConfig:
        """The config of a checkpoint that comes without one: its own default size where the files tell it."""
        return cls.config_class(kind=cls.kind, model=model, revision=revision)

    # The maths' side: called inside the training step.

    @abstractmethod
    def velocity(self, network: nn.Module, point: NoisyLatent, cond: Conditioning) -> Float[Tensor, "b *latent"]:
        """Ask ``network`` for its velocity ``noise - x0`` at ``point``; float32, in the layout of ``point.x_sigma``."""

    def without_padding(self, *batches: Conditioning) -> tuple[Conditioning, ...]:
        """Batches that go through the network together, without text that a mask hides in all of them.

        The masks are read: batches on a GPU are waited for.
        """
        return batches

    def prompt_batch(self, cond: Conditioning, null_cond: Conditioning) -> PromptBatch:
        """Tell every role about the same prompts; families without an unconditional branch override it.

        Args:
            cond: One row per sample.
            null_cond: The unconditional branch, as many rows.
        """
        return PromptBatch(student=cond, teacher=cond, positive=cond, negative=null_cond)

    def guided_velocity(
        self,
        network: nn.Module,
        point: NoisyLatent,
        cond: Conditioning,
        null_cond: Conditioning,
        *,
        guidance_scale: float,
    ) -> Float[Tensor, "b *latent"]:
        """Velocity with the pipeline's own guidance, as it draws pictures; one batched call for both branches.

        Args:
            guidance_scale: As the pipeline counts it.
        """
        if guidance_scale == self.guidance.off:
            return self.velocity(network, point, cond)
        twice = NoisyLatent(torch.cat([point.x_sigma] * 2), torch.cat([point.sigma] * 2))
        null, conditional = self.velocity(network, twice, Conditioning.cat([null_cond, cond])).chunk(2)
        guided = flow.guide(conditional, null, self.guidance.weight(guidance_scale))
        return guided if self.guidance.renormalise is None else self.guidance.renormalise(guided, conditional)

    @property
    def guidance(self) -> Guidance:
        """How the pipeline counts guidance and what it does with it."""
        return Guidance()

    @abstractmethod
    def to_sigma(self, level: Tensor) -> Tensor:
        """Map a pre-shift noise level in [0, 1] to sigma with the teacher's own scheduler (its time shift)."""

    def sigmas(self, levels: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
        """The grid on which the teacher's own sampler goes down ``levels``.

        :meth:`to_sigma` of each, except where the scheduler moves a level by what else is in the grid.
        """
        return self.to_sigma(levels)

    @property
    def sigma_max(self) -> float:
        """The largest sigma the network was trained at: 1 for flow models, below 1 for variance-preserving ones."""
        return 1.0

    @property
    def initial_scale(self) -> float:
        """Factor that turns standard normal noise into the state at ``sigma_max``."""
        return 1.0

    @property
    def frames(self) -> int | None:
        """Of the videos that it makes; None where it makes pictures."""
        return None

    @abstractmethod
    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of one latent of an image of ``height`` x ``width`` pixels; ConfigError when the size does not fit."""

    # The files' side: loading, text, pictures, export.

    @abstractmethod
    def load_network(self, *, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Load the denoising network alone, in eval mode."""

    def load_start(self, model: str, revision: str | None) -> nn.Module:
        """Load the network of another model of the same architecture, for the student to start from, in eval mode."""
        raise ConfigError(f"The backbone {self.kind} loads no other model for the student to start from.")

    def read_start(self, source: LoraSource) -> Mapping[str, LayerFactors]:
        """Read a LoRA of the network, for the student to start from, by the network's layers."""
        raise ConfigError(f"The backbone {self.kind} reads no LoRA for the student to start from.")

    @abstractmethod
    def load_vae(self, *, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Load the VAE alone, in eval mode."""

    @abstractmethod
    def load_pipeline(self, *, dtype: torch.dtype = torch.float32, **components: Any) -> Any:
        """Load the diffusers pipeline; a component passed as None is not loaded, one passed as an object is used."""

    @abstractmethod
    def encode(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        """Embed prompts exactly as the pipeline does for the conditional branch."""

    @abstractmethod
    def prompt_shapes(self) -> Mapping[str, PromptTensor]:
        """What :meth:`encode` makes of one prompt, by name; nothing is loaded.

        Raises:
            ConfigError: The checkpoint's configuration does not say it.
        """

    def encode_null(self, pipeline: Any) -> Conditioning:
        """Embed the unconditional branch: one row."""
        return self.encode_negative(pipeline, self.guidance.null_prompt)

    def encode_negative(self, pipeline: Any, prompt: str) -> Conditioning:
        """Embed a negative prompt, which takes the place of the empty one, exactly as the pipeline does: one row."""
        return self.encode(pipeline, [prompt])

    @abstractmethod
    def decode(self, vae: nn.Module, x0: Float[Tensor, "b *latent"]) -> Float[Tensor, "b 3 *size"]:
        """Turn clean latents into pixels in [0, 1], float32: (b, 3, h, w), or (b, 3, f, h, w) of videos."""

    @abstractmethod
    def student_scheduler(self, sigmas: Sequence[float]) -> Any:
        """The scheduler an exported student ships with: it takes the student's sigmas as they are, or holds them.

        Raises:
            ConfigError: The pipeline takes none, and no scheduler has a grid like ``sigmas`` of its own.
        """

    def sampling_scheduler(self, sigmas: Sequence[float], *, step: Step) -> Any:
        """:meth:`student_scheduler`, with the step between noise levels that the student was trained for.

        Raises:
            ConfigError: It has no such step, or no such grid.
        """
        scheduler = self.student_scheduler(sigmas)
        if step == "euler":
            return scheduler
        if "stochastic_sampling" not in scheduler.config:
            raise ConfigError(
                f"simulation.step is {step}, but {self.config.model} would be exported with a "
                f"{type(scheduler).__name__}, whose steps never re-noise; set simulation.step=euler."
            )
        return type(scheduler).from_config(scheduler.config, stochastic_sampling=True)

    def index_holds(self, sigmas: Sequence[float]) -> frozenset[str]:
        """Those of :meth:`call_kwargs` that an exported student's model_index.json states, so that a call need not."""
        return frozenset()

    @abstractmethod
    def call_kwargs(self, sigmas: Sequence[float]) -> dict[str, Any]:
        """Arguments of the stock pipeline call that reproduces our sampler on ``sigmas`` with a student's scheduler."""

    def load_kwargs(self) -> dict[str, Any]:
        """Extra arguments that ``DiffusionPipeline.from_pretrained`` needs for this checkpoint."""
        return {}

    @abstractmethod
    def save_pipeline(self, network: nn.Module, folder: Path, sigmas: Sequence[float], *, step: Step = "euler") -> None:
        """Write a diffusers folder with ``network``, a student's scheduler, and copies of the other components."""

    def require_usable(self) -> None:
        """Find out what is wrong with files that the config names beside the model, before weights are loaded."""
        return

    def text_identity(self) -> Mapping[str, Any]:
        """What besides the checkpoint's own encoders decides the embeddings of prompts; empty if nothing does."""
        return {}

    # The names of the published CDM documentation, so that a port written against it reads the same.

    def get_lora_target_modules(self) -> list[str]:
        return list(self.lora_targets)

    @abstractmethod
    def get_text_encoders(self, pipeline: Any) -> list[nn.Module]:
        """The pipeline's text encoders, in its own order, without absent ones."""

    @abstractmethod
    def get_tokenizers(self, pipeline: Any) -> list[Any]:
        """The pipeline's tokenizers, in its own order, without absent ones."""

    def token_limits(self, pipeline: Any) -> list[int]:
        """How many tokens of a prompt each of :meth:`get_tokenizers` keeps, its special ones counted."""
        return [int(tokenizer.model_max_length) for tokenizer in self.get_tokenizers(pipeline)]

    def count_tokens(self, tokenizer: Any, prompts: Sequence[str]) -> list[int]:
        """How many tokens each prompt is long before it is cut, its special ones counted."""
        return [len(ids) for ids in tokenizer(list(prompts), truncation=False, verbose=False)["input_ids"]]

    def student_forward(self, network: nn.Module, point: NoisyLatent, cond: Conditioning) -> Tensor:
        """The few-step network's velocity: no guidance."""
        return self.velocity(network, point, cond)

    def teacher_forward(
        self,
        network: nn.Module,
        point: NoisyLatent,
        cond: Conditioning,
        null_cond: Conditioning,
        *,
        guidance_scale: float,
    ) -> Tensor:
        """The teacher's velocity with the pipeline's guidance."""
        return self.guided_velocity(network, point, cond, null_cond, guidance_scale=guidance_scale)
