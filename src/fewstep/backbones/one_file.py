"""A model that is one safetensors file in its original layout (LDM, ComfyUI), beside a diffusers folder for the rest.

diffusers' converters translate the names. What a file holds is found by the beginnings of its names, so that nothing
is read which is not used, and what the network does not take is an error instead of a warning.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.backbones.source import fetch_folder
from fewstep.backbones.tensor_file import opened
from fewstep.backbones.using import quiet_imports
from fewstep.errors import CheckpointError, ConfigError, shown

_NETWORK = "model.diffusion_model."
_VAE = ("first_stage_model.", "vae.")
_OTHERS = (*_VAE, "cond_stage_model.", "conditioner.", "text_encoders.", "model_ema.")
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_SUFFIXES = (".safetensors", ".gguf", *_PICKLES)
_WHOLE = ("position_ids", "num_batches_tracked")
"""What is no weight, and holds whole numbers."""
_NO_WEIGHTS = ("*.safetensors", "*.bin", "*.msgpack", "*.onnx*", "*.ckpt", "*.h5")


def is_one_file(model: str) -> bool:
    """Whether a model's name means a file of weights and not a folder or a repository."""
    return model.endswith(_SUFFIXES) and not os.path.isdir(model)


def require_usable_file(model: str, components: str | None) -> None:
    """Raise ConfigError for a file that is not read, is not there, or stands alone."""
    if model.endswith(_PICKLES):
        raise ConfigError(
            f"{model} is a pickle, which can run code when it is opened, so it is not; convert it to safetensors, or "
            "get the safetensors file of the same model."
        )
    if not model.endswith(".safetensors"):
        raise ConfigError(f"{model} holds quantised weights, which cannot be trained from; get its safetensors file.")
    if not os.path.isfile(model):
        raise ConfigError(f"There is no file {model}; check the path.")
    if components is None:
        raise ConfigError(
            f"{model} is one file of weights, which does not say how its model is built. In a recipe, set "
            "backbone.components to the diffusers folder or repository of the model that it was made from, such as "
            "backbone.components=stabilityai/stable-diffusion-xl-base-1.0."
        )


class OneFile:
    """The components inside one file of weights.

    Args:
        path: The file.
        folder: Diffusers folder or repository id whose JSON files describe the components.
        revision: Of the repository.
        encoders: Of the family: how the names of each text encoder begin.
    """

    def __init__(
        self, path: str, *, folder: str, revision: str | None, encoders: Mapping[str, Sequence[str]], network: str
    ) -> None:
        self.path, self._folder, self._revision, self._network = Path(path), folder, revision, network
        self._prefixes: dict[str, Sequence[str]] = {network: (_NETWORK,), "vae": _VAE, **encoders}

    @cached_property
    def held(self) -> dict[str, list[str]]:
        """Names of the tensors of each component that the file has."""
        with self._opened() as file:
            names = sorted(file.keys())
        found = {
            component: [name for name in names if name.startswith(tuple(prefixes))]
            for component, prefixes in self._prefixes.items()
        }
        if not found[self._network]:  # a file of the network alone needs no prefix
            found[self._network] = [name for name in names if not name.startswith(_OTHERS)]
        if not found[self._network]:
            raise CheckpointError(
                f"{self.path} holds no denoising network, but {shown(names[0]) if names else 'nothing'} first. "
                "Give the file of a whole model or of its network."
            )
        return {component: own for component, own in found.items() if own}

    def load(self, component: str, kind: type[Any], *, like: nn.Module | None, dtype: torch.dtype) -> nn.Module:
        """Load one component, in eval mode.

        Args:
            component: One that the file holds.
            kind: Its class in diffusers or transformers.
            like: The network without weights, whose names and shapes are required exactly; None for other components.
            dtype: Of its weights.

        Raises:
            CheckpointError: The file does not hold exactly this component.
        """
        tensors = self._read(component)
        folder = fetch_folder(self._folder, self._revision, folders=[component], skip=_NO_WEIGHTS)
        if component.startswith("text_encoder"):
            loaded = self._encoder(component, kind, tensors, folder, dtype)
        else:
            converted = self._converted(component, kind, tensors, like, folder)
            with self._explained(component):
                loaded = kind.from_single_file(
                    converted, config=str(folder), subfolder=component, dtype=dtype, local_files_only=True
                )
        absent = [name for name, value in loaded.named_parameters() if value.is_meta]
        if absent:
            raise CheckpointError(
                f"{len(absent)} weights of the {component} in {self.path} are missing, first {absent[0]}; "
                f"backbone.components ({self._folder}) describes another model, or the file is not whole."
            )
        network: nn.Module = loaded.eval()
        return network

    def content(self, components: Sequence[str]) -> str | None:
        """A hash of what the file holds of some components; None if it holds none of them."""
        own = [component for component in components if component in self.held]
        digest = hashlib.blake2b(digest_size=16)
        for component in own:
            for name, tensor in self._read(component).items():
                digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
                digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest() if own else None

    def _read(self, component: str) -> dict[str, Tensor]:
        with self._opened() as file:
            tensors = {name: file.get_tensor(name) for name in self.held[component]}
        for name, tensor in tensors.items():
            if not (tensor.is_floating_point() or name.endswith(_WHOLE)):
                raise CheckpointError(
                    f"The weight {shown(name, quoted=False)} in {self.path} is stored as {tensor.dtype}, not as "
                    "floating-point numbers. Get the file again; quantised files are not read."
                )
        return tensors

    def _converted(
        self, component: str, kind: type[Any], tensors: dict[str, Tensor], like: nn.Module | None, folder: Path
    ) -> dict[str, Tensor]:
        """The tensors under the names of diffusers."""
        from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

        wanted = {} if like is None else {name: value.shape for name, value in like.state_dict().items()}
        count = sum(value.numel() for value in tensors.values())
        if tensors.keys() == wanted.keys():
            return tensors
        convert = SINGLE_FILE_LOADABLE_CLASSES[kind.__name__]["checkpoint_mapping_fn"]
        with self._explained(component):
            if kind.__name__ == "FluxTransformer2DModel":
                converted = _converted_flux(tensors, convert)
            else:
                config = kind.load_config(str(folder), subfolder=component, local_files_only=True)
                # of a UNet alone, too, the converter reads names as whole files have them
                bare = component == "unet" and not any(name.startswith(_NETWORK) for name in tensors)
                named = {f"{_NETWORK}{name}" if bare else name: value for name, value in tensors.items()}
                converted = convert(checkpoint=named, config={**_defaults(kind), **config})
        wrong = [name for name in wanted if name not in converted or converted[name].shape != wanted[name]]
        left = count - sum(value.numel() for value in converted.values())
        if like is not None and (wrong or converted.keys() - wanted.keys() or left):
            raise CheckpointError(
                f"The {component} in {self.path} is not the {kind.__name__} that {self._folder} describes: "
                f"{len(wrong)} weights are missing or of another shape{f', first {wrong[0]}' if wrong else ''}, and "
                f"{max(left, 0)} numbers of the file have no place. Set backbone.components to the model that the file "
                "was made from; quantised files (fp8 with scales) are not read."
            )
        return {name: value for name, value in converted.items() if like is None or name in wanted}

    def _encoder(
        self, component: str, kind: type[Any], tensors: dict[str, Tensor], folder: Path, dtype: torch.dtype
    ) -> Any:
        from diffusers.loaders import single_file_utils as single_file

        is_t5 = "T5" in kind.__name__
        create = (
            single_file.create_diffusers_t5_model_from_checkpoint
            if is_t5
            else single_file.create_diffusers_clip_model_from_ldm
        )
        with self._explained(component):
            encoder = create(
                kind,
                checkpoint=tensors,
                config=str(folder),
                subfolder=component,
                torch_dtype=dtype,
                local_files_only=True,
            )
            encoder.tie_weights()  # the one table of words that T5 has under two names, of which files hold one or both
            return encoder

    def _opened(self) -> AbstractContextManager[Any]:
        return opened(self.path, what="The checkpoint", cure="Get the file again")

    @contextmanager
    def _explained(self, component: str) -> Iterator[None]:
        """Whatever a converter meets in a file that is not laid out as it expects becomes a sentence."""
        from diffusers.utils import logging

        before = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            with quiet_imports():
                yield
        except (AttributeError, IndexError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            detail = " ".join(f"{type(error).__name__}: {error}".split())
            raise CheckpointError(
                f"The {component} in {self.path} cannot be converted for the model that {self._folder} describes "
                f"({shown(detail, quoted=False)}). Set backbone.components to the model that the file was made from."
            ) from error
        finally:
            logging.set_verbosity(before)


def _defaults(kind: type[Any]) -> dict[str, Any]:
    """What a class assumes of settings that a configuration leaves out."""
    import inspect

    parameters = inspect.signature(kind.__init__).parameters.values()
    return {value.name: value.default for value in parameters if value.default is not inspect.Parameter.empty}


_FLUX_WIDTH = 3072


def _converted_flux(tensors: Mapping[str, Tensor], convert: Any) -> dict[str, Tensor]:
    """FLUX in any width: diffusers' converter cuts the fused rows of single blocks as the released width asks."""
    plain = {name.removeprefix(_NETWORK): value for name, value in tensors.items()}
    width = len(plain["img_in.weight"])
    if width == _FLUX_WIDTH:
        converted: dict[str, Tensor] = convert(checkpoint=plain)
        return converted
    fused = {name: value for name, value in plain.items() if name.startswith("single_blocks.") and ".linear1." in name}
    stand_ins = {name: value.new_empty(1).expand(7 * _FLUX_WIDTH, *value.shape[1:]) for name, value in fused.items()}
    converted = convert(checkpoint={**plain, **stand_ins})
    for name, value in fused.items():
        _, number, _, kind = name.split(".")
        parts = torch.split(value, [width] * 3 + [len(value) - 3 * width])
        for part, rows in zip(("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"), parts, strict=True):
            converted[f"single_transformer_blocks.{number}.{part}.{kind}"] = rows.contiguous()
    return converted
