"""LoRA files as people have them: where they are, their key layouts, and what each adds to which layer.

diffusers' own converters read the layouts of kohya and of the trainers of FLUX; what they leave is named here by the
layers of the network, and nothing of a file is ever left out without a word.
"""

import json
import math
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.backbones.lora_source import LayerFactors, LoraSource
from fewstep.backbones.tensor_file import opened
from fewstep.errors import CheckpointError, ConfigError, shown
from fewstep.files import UnreadableError, load_json, parse_json
from fewstep.hub import hub_errors

_USUAL_NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_PEFT_CONFIG = "adapter_config.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
# how trainers call the two factors and the scale of a layer
_DOWN = re.compile(r"^(?P<layer>.+?)[._]?(?:lora_down|lora_A|lora\.down|lora_linear_layer\.down)(?:\.\w+)?\.weight$")
_UP = re.compile(r"lora_up|lora_B|lora(_\w+)?\.up")
_FACTOR = re.compile(r"^(?P<layer>.+)\.lora_(?P<letter>[AB])(?:\.(?!weight|bias)\w+)?\.(?P<kind>weight|bias)$")
_PEFT_PREFIX = "base_model.model."
_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
_OTHER_METHODS = {"dora_scale": "DoRA", "lora_magnitude_vector": "DoRA", "lokr_": "LoKr", "hada_": "LoHa"}


Factors = dict[str, dict[str, LayerFactors]]
"""By component (``unet``, ``transformer``, ``text_encoder``, ...) and layer."""


def find_lora(source: LoraSource) -> Path:
    """The safetensors file that a setting means, fetched when it is a repository's.

    Raises:
        ConfigError: There is no such file, there are several, or it is a pickle.
    """
    path = source.path
    if path.endswith(_PICKLES) or (source.file or "").endswith(_PICKLES):
        raise ConfigError(
            f"The LoRA {source.file or path} is a pickle, which can run code when it is opened; "
            "convert it to safetensors, or get the safetensors file of the same LoRA."
        )
    if os.path.isfile(path):
        if source.file is not None:
            raise ConfigError(
                f"The LoRA {path} is a file, so 'file' ({shown(source.file)}) has nothing to choose from."
            )
        return Path(path)
    if os.path.isdir(path):
        names = sorted(entry.name for entry in Path(path).glob("*.safetensors"))
        return Path(path) / _choose(source, names)
    if path.endswith(".safetensors") or path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise ConfigError(
            f"There is no LoRA {path}: give a safetensors file, a folder that holds one, or a repository id."
        )
    return _fetch(source)


def _choose(source: LoraSource, names: Collection[str]) -> str:
    wanted = [source.file] if source.file is not None else [name for name in _USUAL_NAMES if name in names]
    found = [name for name in wanted if name in names] or (list(names) if source.file is None else [])
    if len(found) == 1:
        return found[0]
    listed = ", ".join(list(names)[:10]) or "none"
    raise ConfigError(
        f"{source.path} does not tell which LoRA is meant; its safetensors files are: {listed}. "
        "Name one of them with 'file', as in {path: FOLDER, file: NAME.safetensors}."
    )


def _fetch(source: LoraSource) -> Path:
    from huggingface_hub import hf_hub_download, list_repo_files
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with hub_errors(source.path, None):
        for name in [source.file] if source.file is not None else _USUAL_NAMES:
            try:
                found = Path(hf_hub_download(source.path, name))
            except LocalEntryNotFoundError:
                if name == _USUAL_NAMES[-1] or source.file is not None:
                    raise
            except EntryNotFoundError:
                continue
            else:
                if name == "adapter_model.safetensors":  # its scale stands beside it
                    hf_hub_download(source.path, _PEFT_CONFIG)
                return found
        names = sorted(name for name in list_repo_files(source.path) if name.endswith(".safetensors"))
        return Path(hf_hub_download(source.path, _choose(source, names)))


def read_lora(
    source: LoraSource,
    *,
    pipeline: type[Any],
    component: str,
    network_config: Mapping[str, Any],
    layers: Collection[str],
) -> Factors:
    """Read a LoRA into factors named by the layers of a pipeline's components.

    Args:
        pipeline: The diffusers pipeline, whose own converter is used where it has one.
        component: The pipeline's name of its network.
        network_config: The network's configuration.
        layers: Names of the network's layers.

    Raises:
        ConfigError: It is not found, is no LoRA, or is of a kind that cannot be merged.
        CheckpointError: The file is damaged, or holds what is not a number.
    """
    path = find_lora(source)
    tensors, scale_of = _read(path, component)
    _require_plain_lora(tensors, path)
    _fold_alphas(tensors, path)
    converted = _converted(tensors, path, pipeline, component, network_config, layers)
    found: Factors = {}
    for name, own in _by_component(converted, component, path).items():
        found[name] = _paired(_peft_names(own, is_network=name == component), scale_of.get(name), path)
    return found


def _read(path: Path, component: str) -> tuple[dict[str, Tensor], dict[str, Mapping[str, Any]]]:
    """A file's tensors in float32, and what peft says of each component's scale."""
    with opened(path, what="The LoRA", cure="Get the file again") as file:
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        noted = (file.metadata() or {}).get("lora_adapter_metadata")
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"The LoRA {path} holds values that are no numbers, first in {shown(name)}.")
    settings: dict[str, Any] = {}
    if noted is not None:
        try:
            settings = parse_json(noted, dict[str, Any])
        except UnreadableError as error:
            raise CheckpointError(f"What the LoRA {path} notes of its scale cannot be used: {error}.") from error
    beside = path.with_name(_PEFT_CONFIG)
    if beside.is_file():
        peft = load_json(beside, dict[str, Any], cure="Get the LoRA again")
        settings.update({f"{component}.{key}": value for key, value in peft.items()})
    by_component: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        owner, _, name = key.partition(".")
        by_component.setdefault(owner, {})[name] = value
    return tensors, dict(by_component)


def _require_plain_lora(tensors: Mapping[str, Tensor], path: Path) -> None:
    for mark, method in _OTHER_METHODS.items():
        if any(mark in name for name in tensors):
            raise ConfigError(
                f"{path} is a {method}, which is not merged as a LoRA is; merge it into the model with the tool that "
                "made it, and use that model."
            )
    if not any(_DOWN.match(name) for name in tensors):
        first = shown(min(tensors, default="nothing"))
        raise ConfigError(f"{path} is no LoRA: it holds no low-rank factors, but {first}. Give a LoRA file.")


def _fold_alphas(tensors: dict[str, Tensor], path: Path) -> None:
    """Put each layer's alpha into its factor, in place: afterwards every alpha is the rank, which scales by 1."""
    alphas = {name.removesuffix(".alpha"): name for name in tensors if name.endswith(".alpha")}
    for name in list(tensors):
        match = _DOWN.match(name)
        if match is None or match["layer"] not in alphas:
            continue
        alpha = alphas.pop(match["layer"])
        rank = tensors[name].shape[0]
        if tensors[alpha].numel() != 1:
            raise CheckpointError(f"{shown(alpha)} of the LoRA {path} is no single number. Get the file again.")
        tensors[name] = tensors[name] * (tensors[alpha].item() / rank)
        tensors[alpha] = torch.tensor(float(rank))
    if alphas:
        raise CheckpointError(f"{shown(min(alphas.values()))} of the LoRA {path} belongs to no factor of it.")


def _converted(
    tensors: dict[str, Tensor],
    path: Path,
    pipeline: type[Any],
    component: str,
    network_config: Mapping[str, Any],
    layers: Collection[str],
) -> dict[str, Tensor]:
    """The tensors under the names of diffusers: ``COMPONENT.LAYER. ...``."""
    plain = {name.removeprefix(_PEFT_PREFIX): value for name, value in tensors.items()}
    owners = {name.partition(".")[0] for name in plain}
    if owners <= {component, *_ENCODERS}:
        return plain
    if owners & {layer.partition(".")[0] for layer in layers}:  # bare layers of the network
        return {f"{component}.{name}": value for name, value in plain.items()}
    underscored = {layer.replace(".", "_"): layer for layer in layers}
    named = _kohya_of_diffusers_layers(tensors, underscored, component)
    if named is not None:
        return named
    convert = getattr(pipeline, "lora_state_dict", None)
    if convert is None:
        raise ConfigError(
            f"{path} names its layers in a way that diffusers does not convert for a {pipeline.__name__}, "
            f"first {shown(min(tensors))}; convert it to the layout of diffusers or peft."
        )
    from types import SimpleNamespace

    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    options = {"unet_config": SimpleNamespace(**network_config)} if component == "unet" else {}
    try:
        result = convert(dict(tensors), **options)
    except Exception as error:  # whatever a converter meets in a file that is not made for it
        raise ConfigError(
            f"{path} does not fit a {pipeline.__name__}: diffusers cannot convert its layer names, such as "
            f"{shown(min(tensors))}. It was made for another family of models; give a LoRA for this one."
        ) from error
    finally:
        logging.set_verbosity(before)
    converted: dict[str, Tensor] = result[0] if isinstance(result, tuple) else result
    _require_nothing_dropped(tensors, converted, path)
    return converted


def _require_nothing_dropped(tensors: Mapping[str, Tensor], converted: Mapping[str, Tensor], path: Path) -> None:
    """Some converters drop the layers they do not know with a warning at most.

    They copy and cut the upper factors of the others, which leaves the sum of their squares as it is.
    """
    before, after = (
        sum(float(value.double().square().sum()) for name, value in own.items() if _UP.search(name))
        for own in (tensors, converted)
    )
    if not math.isclose(before, after, rel_tol=1e-3):
        raise ConfigError(
            f"diffusers would leave out a part of {path}: it knows only some of its layers for this model. "
            "Give a LoRA for this model, in one layout."
        )


def _kohya_of_diffusers_layers(
    tensors: Mapping[str, Tensor], underscored: Mapping[str, str], component: str
) -> dict[str, Tensor] | None:
    """Names such as ``lora_unet_mid_block_attentions_0_proj_in.lora_down.weight``, when every one is a layer's."""
    named = {}
    for name, value in tensors.items():
        match = re.match(r"^lora_(?:unet|transformer)_(\w+)\.(lora_down|lora_up|alpha)(.*)$", name)
        layer = underscored.get(match[1]) if match else None
        if match is None or layer is None:
            return None
        if match[2] != "alpha":
            factor = {"lora_down": "lora_A", "lora_up": "lora_B"}[match[2]]
            named[f"{component}.{layer}.{factor}{match[3]}"] = value
    return named


def _by_component(tensors: Mapping[str, Tensor], component: str, path: Path) -> dict[str, dict[str, Tensor]]:
    split: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        owner, _, rest = name.partition(".")
        if owner not in (component, *_ENCODERS):
            raise ConfigError(
                f"{path} has factors for {shown(owner)}, which is no part of this model that a LoRA is merged into "
                f"({component} and text encoders are). Give a LoRA for this model."
            )
        if not rest.endswith(".alpha"):
            split.setdefault(owner, {})[rest] = value
    return split


def _peft_names(tensors: Mapping[str, Tensor], *, is_network: bool) -> dict[str, Tensor]:
    """Older names of diffusers (``to_q_lora.down``, ``lora_linear_layer.up``) as ``LAYER.lora_A.weight``."""
    from diffusers.utils import state_dict_utils as names

    if is_network:
        known: dict[str, str] = names.UNET_TO_DIFFUSERS
    else:
        known = {**names.DIFFUSERS_OLD_TO_PEFT, **names.DIFFUSERS_TO_PEFT}
    converted: dict[str, Tensor] = names.convert_state_dict(dict(tensors), known)
    return converted


def _paired(tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None, path: Path) -> dict[str, LayerFactors]:
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        match = _FACTOR.match(name)
        if match is None or (match["kind"] == "bias" and match["letter"] == "A"):
            raise ConfigError(
                f"{path} holds {shown(name)}, which is no low-rank factor and cannot be merged as one. "
                "Give a plain LoRA, or merge this one with the tool that made it."
            )
        key = "bias" if match["kind"] == "bias" else match["letter"]
        parts.setdefault(match["layer"], {})[key] = value
    made = {}
    for layer, pair in parts.items():
        if "A" not in pair or "B" not in pair:
            raise CheckpointError(f"The LoRA {path} has one factor of {shown(layer)} without the other.")
        rank = pair["A"].shape[0]
        made[layer] = LayerFactors(pair["B"], pair["A"], _scaling(layer, rank, settings, path), pair.get("bias"))
    return made


def _scaling(layer: str, rank: int, settings: Mapping[str, Any] | None, path: Path) -> float:
    """Alpha over the rank (or its root) as peft noted it; without a note it is 1, as in diffusers."""
    if settings is None:
        return 1.0
    if settings.get("use_dora"):
        raise ConfigError(f"{path} is a DoRA, which is not merged as a LoRA is; merge it with the tool that made it.")
    patterns = settings.get("alpha_pattern") or {}
    noted = next((value for pattern, value in patterns.items() if re.match(rf"^(.*\.)?({pattern})$", layer)), None)
    alpha = settings.get("lora_alpha") if noted is None else noted
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise CheckpointError(f"The LoRA {path} notes an alpha of {shown(alpha)}, which is no number.")
    return float(alpha) / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def content(factors: Mapping[str, LayerFactors]) -> Iterator[bytes]:
    """Everything that factors say, for a hash."""
    for layer, own in sorted(factors.items()):
        yield json.dumps([layer, own.scaling, list(own.up.shape), list(own.down.shape)]).encode()
        for tensor in (own.up, own.down, *([] if own.bias is None else [own.bias])):
            yield tensor.contiguous().numpy().tobytes()
