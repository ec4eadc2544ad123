"""What the conformance suite has to know about a family of backbones: how its tiny pipeline is made and called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


def stock_pack(pipeline: Any, latents: Tensor) -> Tensor:
    """``pack`` of a family whose pipeline packs as FLUX's does, by its own method."""
    packed: Tensor = pipeline._pack_latents(latents, *latents.shape)
    return packed


def stock_unpack(pipeline: Any, tokens: Tensor, height: int, width: int) -> Tensor:
    """``unpack`` of the same; height and width in pixels."""
    latents: Tensor = pipeline._unpack_latents(tokens, height, width, pipeline.vae_scale_factor)
    return latents


def _call(pipeline: Any, arguments: dict[str, Any]) -> Any:
    return pipeline(**arguments, return_dict=False)[0]


@dataclass(frozen=True)
class Family:
    """A tiny real pipeline of one family. Most need the first three, and ``size`` where 16 pixels do not fit.

    Attributes:
        kind: Of its backbone, as recipes name it.
        build: Makes the stock pipeline; the seed is set before. The parts in :mod:`fewstep.testing` help.
        config: Fields of the backbone config beside the model and its size.
        name: In the names of the tests; the kind where it is left out.
        size: Height and width of the default pictures, in pixels.
        other_size: Another size, not square.
        call: Arguments of the stock call beside those that the adapter's ``call_kwargs`` gives.
        stock_call: Calls the stock pipeline and gives latents, or pixels where ``output_type`` is ``pt``. The arguments
            are ``prompt``, ``latents``, ``sigmas`` (levels before the time shift), ``output_type``, those of the
            adapter's ``guidance`` and ``call_kwargs``, and ``call``; this dictionary may be changed. A pipeline that
            names them otherwise, or gives latents that are not what its sampler ends with, has its own.
        prepare: Changes the stock pipeline before it is compared: gives it a first-order scheduler that takes a grid
            where its own does not.
        pack, unpack: From our latents to those that the stock pipeline draws, and back; height and width in pixels.
            :func:`stock_pack` and :func:`stock_unpack` where both are the pipeline's own.
        flow_sigma: From the stock scheduler's noise levels to ours.
        flow_state: From the stock sampler's state, unpacked, at one of our noise levels to ours.
        noise_axes: Between our latents and those in whose order of axes the stock pipeline draws its noise.
        tolerance: Largest difference of a latent, where rounding is enlarged on the way.
    """

    kind: str
    build: Callable[[], Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    size: tuple[int, int] = (16, 16)
    other_size: tuple[int, int] = (24, 12)
    call: Mapping[str, Any] = field(default_factory=dict)
    stock_call: Callable[[Any, dict[str, Any]], Any] = _call
    prepare: Callable[[Any], None] = lambda pipeline: None
    pack: Callable[[Any, Tensor], Tensor] = lambda pipeline, latents: latents
    unpack: Callable[[Any, Tensor, int, int], Tensor] = lambda pipeline, latents, height, width: latents
    flow_sigma: Callable[[Tensor], Tensor] = lambda sigma: sigma
    flow_state: Callable[[Tensor, Tensor], Tensor] = lambda state, sigma: state
    noise_axes: Callable[[Tensor], Tensor] = lambda noise: noise
    tolerance: float = 1e-5

    def __str__(self) -> str:
        return self.name or self.kind
