"""Which adapter serves which checkpoint.

Third parties add kinds through the entry-point group ``fewstep.backbones``.
"""

import difflib
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from fewstep.backbones.finite import require_clock
from fewstep.backbones.one_file import is_one_file, require_usable_file
from fewstep.backbones.protocol import BackboneConfig, ModelAdapter
from fewstep.backbones.refused import other_medium, recognise, recognise_name, refuse
from fewstep.backbones.source import Checkpoint, open_checkpoint
from fewstep.errors import ConfigError
from fewstep.garbage import libraries_are_there
from fewstep.plugins import BACKBONES, find, installed, load

BUILT_IN = {
    "sd3": "fewstep.backbones.sd3:SD3Adapter",
    "flux": "fewstep.backbones.flux:FluxAdapter",
    "longcat": "fewstep.backbones.longcat:LongCatAdapter",
    "sana": "fewstep.backbones.sana:SanaAdapter",
    "pixart": "fewstep.backbones.pixart:PixArtAdapter",
    "cogvideox": "fewstep.backbones.cogvideox:CogVideoXAdapter",
    "wan": "fewstep.backbones.wan:WanAdapter",
    "z-image": "fewstep.backbones.z_image:ZImageAdapter",
    "qwen-image": "fewstep.backbones.qwen_image:QwenImageAdapter",
    "qwen-image-2.1": "fewstep.backbones.qwen_image21:QwenImage21Adapter",
    "flux2-klein": "fewstep.backbones.flux2:Flux2KleinAdapter",
    "flux2": "fewstep.backbones.flux2:Flux2DevAdapter",
    "chroma": "fewstep.backbones.chroma:ChromaAdapter",
    "krea2": "fewstep.backbones.krea2:Krea2Adapter",
    "sd15": "fewstep.backbones.sd15:SD15Adapter",
    "sdxl": "fewstep.backbones.sdxl:SDXLAdapter",
}


def backbone_kinds() -> tuple[str, ...]:
    """Every kind that a recipe may name, built in or from an installed package."""
    return tuple(sorted({*BUILT_IN, *(entry.name for entry in installed(BACKBONES))}))


def comfyui_kinds() -> list[str]:
    """The built-in kinds whose factors ComfyUI reads."""
    return [kind for kind in BUILT_IN if adapter_class(kind).comfyui is not None]


def adapter_class(kind: str) -> type[ModelAdapter]:
    """The adapter of one kind.

    Raises:
        ConfigError: No such kind, an installed package's adapter cannot be used, or packages clash over the kind.
    """
    entry = find(BACKBONES, kind, built_in=BUILT_IN)
    if entry is not None:
        outside: type[ModelAdapter] = load(
            entry, lambda loaded: _is_adapter(loaded, kind), f"a ModelAdapter whose kind is {kind!r}, in its config too"
        )
        return outside
    if kind in BUILT_IN:
        module, name = BUILT_IN[kind].split(":")
        built_in: type[ModelAdapter] = getattr(import_module(module), name)
        return built_in
    known = backbone_kinds()
    nearest = difflib.get_close_matches(kind, known, n=3) or known
    raise ConfigError(
        f"backbone.kind is {kind!r}, which no installed package provides; the nearest are {', '.join(nearest)}."
    )


def create_model_adapter(
    base_model: str | Path, config: BackboneConfig | None = None, *, as_teacher: bool = True
) -> ModelAdapter:
    """Make the adapter of a checkpoint from its JSON files; no weight is loaded.

    Args:
        base_model: Local diffusers folder, Hugging Face repository id, or ``fewstep:digits``.
        config: A recipe's ``backbone``; without it, the checkpoint's own facts and defaults. ``base_model`` decides
            which files are read, so that an exported folder can be opened with its recipe's config.
        as_teacher: False opens an already distilled checkpoint too, to draw pictures with it.

    Raises:
        ConfigError: The checkpoint cannot be read, is already distilled, or is not what ``config.kind`` drives.
        CheckpointError: Its scheduler gives noise levels that are none.
    """
    model = str(base_model)
    origin = _origin(model, config)
    refuses = as_teacher and not (config is not None and config.allow_distilled)
    if refuses:
        name = Path(model).stem if is_one_file(model) else model
        refuse(name, recognise_name(name))  # nothing is fetched of what its name alone gives away
    checkpoint = open_checkpoint(origin, config.revision if config is not None else None)
    if refuses:
        refuse(checkpoint.model, recognise(checkpoint))
    if config is None:
        adapter = _class_for(checkpoint)
        return _with_clock(adapter(_own_config(adapter, checkpoint), checkpoint.adapter_components))
    adapter = adapter_class(config.kind)
    _require_pipeline(adapter, checkpoint)
    _require_agreement(config, checkpoint)
    if config.lora and not adapter.merges_lora:
        raise ConfigError(
            f"backbone.lora is set, but the backbone {adapter.kind} merges no LoRA into what it loads; merge it into "
            "the model yourself, and leave backbone.lora out."
        )
    if model != config.model:  # what was made from the config's model has its LoRAs inside
        config = config.model_copy(update={"model": model, "components": None, "lora": ()})
    return _with_clock(adapter(config, checkpoint.adapter_components))


def _with_clock(adapter: ModelAdapter) -> ModelAdapter:
    require_clock(adapter)
    libraries_are_there()
    return adapter


def _origin(model: str, config: BackboneConfig | None) -> str:
    """The folder or repository that describes a model."""
    components = config.components if config is not None and config.model == model else None
    if is_one_file(model):
        require_usable_file(model, components)
    elif components is not None:
        raise ConfigError(
            f"backbone.components is {components}, but backbone.model is {model}, which is no single file of weights "
            "and brings its own components; leave backbone.components out."
        )
    return components or model


def _class_for(checkpoint: Checkpoint) -> type[ModelAdapter]:
    if checkpoint.facts is not None and "kind" in checkpoint.facts.backbone:
        adapter = adapter_class(str(checkpoint.facts.backbone["kind"]))
        _require_pipeline(adapter, checkpoint)
        return adapter
    served, broken = [], []
    for kind in [*BUILT_IN, *(kind for kind in backbone_kinds() if kind not in BUILT_IN)]:
        try:
            adapter = adapter_class(kind)
        except ConfigError as error:  # of a package that may have nothing to do with this checkpoint
            broken.append(str(error))
            continue
        if adapter.pipeline_class == checkpoint.pipeline_class:
            return adapter
        served.append(f"{kind} ({adapter.pipeline_class})")
    _refuse_other_media(checkpoint)
    raise ConfigError(
        f"{checkpoint.model} is a {checkpoint.pipeline_class}, for which there is no backbone; there are: "
        f"{', '.join(sorted(served))}. {' '.join(['docs/adding-a-backbone.md says how to add one.', *broken])}"
    )


def _require_pipeline(adapter: type[ModelAdapter], checkpoint: Checkpoint) -> None:
    of_students = adapter.student_pipelines if checkpoint.facts is not None else frozenset[str]()
    if checkpoint.pipeline_class not in {adapter.pipeline_class, *of_students}:
        _refuse_other_media(checkpoint)
        raise ConfigError(
            f"{checkpoint.model} is a {checkpoint.pipeline_class}, but backbone.kind={adapter.kind} drives a "
            f"{adapter.pipeline_class}. Give another model, or the recipe of this one."
        )


def _refuse_other_media(checkpoint: Checkpoint) -> None:
    """A video or 3-D pipeline gets its own sentence, unless an installed package serves its class."""
    reason = other_medium(checkpoint.pipeline_class)
    if reason is not None:
        raise ConfigError(f"{checkpoint.model} is a {checkpoint.pipeline_class}: {reason}.")


def _require_agreement(config: BackboneConfig, checkpoint: Checkpoint) -> None:
    """Refuse a config whose family's own choices contradict what the checkpoint says of itself."""
    if checkpoint.facts is None:
        return
    fields = config.model_dump(mode="json")
    own = fields.keys() - BackboneConfig.model_fields.keys()
    for name in sorted(own & checkpoint.facts.backbone.keys()):
        asked, stated = fields[name], checkpoint.facts.backbone[name]
        if asked != stated:
            raise ConfigError(
                f"backbone.{name} is {asked}, but {checkpoint.model} was made with {stated} (its fewstep.json). "
                f"Set backbone.{name}={stated}."
            )


def _own_config(adapter: type[ModelAdapter], checkpoint: Checkpoint) -> BackboneConfig:
    default = adapter.default_config(checkpoint.model, checkpoint.revision, checkpoint.components)
    stated: dict[str, Any] = dict(checkpoint.facts.backbone) if checkpoint.facts is not None else {}
    place = {"model": checkpoint.model, "revision": checkpoint.revision}
    try:
        return adapter.config_class.model_validate({**default.model_dump(), **stated, **place})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"fewstep.json of {checkpoint.model} sets backbone.{'.'.join(map(str, first['loc']))} to "
            f"{first['input']!r}: {first['msg']}. Correct or delete that file."
        ) from error


def _is_adapter(loaded: Any, kind: str) -> bool:
    if not (isinstance(loaded, type) and issubclass(loaded, ModelAdapter) and getattr(loaded, "kind", None) == kind):
        return False
    allowed = get_args(loaded.config_class.model_fields["kind"].annotation)
    return not allowed or kind in allowed
