"""Component configurations made whole: the published JSON over the defaults of the class that the component is.

diffusers writes only what a class took when the file was made. Keys added since are absent, keys dropped since stay
behind, and a class may have been renamed or split. Whoever reads a completed configuration finds every argument of
the installed class and guesses no default; values that no class can take are refused here and nowhere else.
"""

import inspect
import math
import re
from collections.abc import Mapping
from typing import Any

from fewstep.backbones.using import quiet_imports
from fewstep.errors import CheckpointError, shown

_Config = Mapping[str, Any]
Components = Mapping[str, _Config]

_MODEL_INDEX = "model_index"
_SPLIT_CLASSES = {("Transformer2DModel", "ada_norm_single"): "PixArtTransformer2DModel"}
"""Classes that have been split since, by their old name and the ``norm_type`` of the file."""

_MAX_NUMBER = 1e8
_MAX_LENGTH = 256
_MAX_DEPTH = 4
_LARGEST = {"sample_size": 8192, "pos_embed_max_size": 4096, "num_train_timesteps": 100_000}
"""Above what any model has, and below what makes a machine work before anybody sees that the file is wrong."""
_MAX_LAYERS = 200
_MAX_WIDTH = 2**16
"""Of every whole number in a diffusers component, but those that name a place or a frequency."""
_MAX_POSITIONS = 2**28
"""Numbers in a table of positions, which is computed even for a network without weights; SD3.5-Medium's has 2**27.8."""
_LONG_LISTS = {"trained_betas": 100_000, "latents_mean": 4096, "latents_std": 4096}
_ANY_SIGN = {"base_shift", "max_shift", "num_single_layers", "downsample_padding", "freq_shift"}
"""Numbers that may be 0 or below though their default is above."""
_NO_LIMIT = {"lambda_min_clipped": -math.inf}
"""Keys that are written with an infinity that means no limit; it is their default."""

CURE = "Get the model again, or correct the file"


def pipeline_parts(model_index: _Config) -> dict[str, tuple[str, str]]:
    """The components that are present, as name -> (library, class).

    An index also holds plain settings, lists among them, and ``[null, null]`` for a component that is left out.
    """
    return {
        name: (value[0], value[1])
        for name, value in model_index.items()
        if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)
    }


def complete_components(components: Components, *, place: str) -> dict[str, _Config]:
    """Complete every component of a pipeline; ``model_index`` stays as it is.

    Args:
        place: The model, for messages.

    Raises:
        CheckpointError: A value is of the wrong kind, not finite or out of bounds.
    """
    parts = pipeline_parts(components.get(_MODEL_INDEX, {}))
    return {
        name: config
        if name == _MODEL_INDEX
        else complete(config, parts.get(name, ("", ""))[1], place=f"The {name} configuration of {place}")
        for name, config in components.items()
    }


def complete(config: _Config, class_name: str = "", *, place: str) -> _Config:
    """Lay one component's configuration over the defaults of its class, and check its values.

    The file's own ``_class_name`` counts before the index's: it is the class that wrote the file. ``_class_name`` of
    the result is the class that the installed diffusers has for it. Of a class that it does not have, the file stays
    as it is.

    Args:
        class_name: The class by the index, for files that name none.
        place: Begins the message, such as "The vae configuration of MODEL".
    """
    stated = config.get("_class_name", class_name)
    name = _SPLIT_CLASSES.get((str(stated), str(config.get("norm_type"))), stated)
    _require_plain(config, place=place)
    found = _diffusers_class(name)
    parameters = _parameters(found or _text_config_class(config.get("model_type")))
    # transformers checks its own configurations when it loads them; of those, only what is read here counts
    judged = parameters.keys() if found is not None else {"max_position_embeddings"} & parameters.keys()
    for key in [key for key in config if key in judged]:
        _require_fit(key, config[key], parameters[key], place=place)
        if found is not None:
            _require_narrow(key, config[key], place=place)
    defaults = {key: _as_json(parameter.default) for key, parameter in parameters.items()}
    known = {"_class_name": name} if isinstance(name, str) and name else {}
    made = {**{key: value for key, value in defaults.items() if value is not ...}, **config, **known}
    _require_few_positions(made, place=place)
    return made


def without_infinities(config: _Config) -> dict[str, Any]:
    """A completed configuration as strict JSON can hold it: an infinity that is the default goes without saying."""
    return {key: value for key, value in config.items() if not (isinstance(value, float) and math.isinf(value))}


def _parameters(found: type[Any] | None) -> dict[str, inspect.Parameter]:
    """The named arguments of a component's class; none when the installed libraries do not have it."""
    if found is None:
        return {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(found.__init__).parameters
    return {key: value for key, value in parameters.items() if key != "self" and value.kind in named}


def _diffusers_class(name: Any) -> type[Any] | None:
    if not (isinstance(name, str) and re.fullmatch(r"[A-Z]\w{0,99}", name)):
        return None
    with quiet_imports():
        import diffusers

        try:
            found = getattr(diffusers, name, None)
        except (ImportError, RuntimeError):  # a class whose own requirements are not installed
            return None
    if not isinstance(found, type) or not issubclass(found, diffusers.ConfigMixin):
        return None
    return None if issubclass(found, diffusers.DiffusionPipeline) else found


def _text_config_class(model_type: Any) -> type[Any] | None:
    if not isinstance(model_type, str):
        return None
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:  # not `get`, which that mapping answers without looking the class up
        return None
    found: type[Any] = CONFIG_MAPPING[model_type]
    return found


def _as_json(default: Any) -> Any:
    """A default as a JSON file would say it; ``...`` for one that no JSON file says."""
    if isinstance(default, tuple | list):
        return [_as_json(item) for item in default]
    return default if default is None or isinstance(default, bool | int | float | str) else ...


# What any value must satisfy, whoever reads it.


def _require_plain(config: _Config, *, place: str) -> None:
    """Refuse numbers that no configuration has, at any depth and under any key."""
    for key, value in config.items():
        _require_bounded(key, value, _NO_LIMIT.get(key), _MAX_DEPTH, place=place)


def _require_bounded(key: str, value: Any, no_limit: float | None, depth: int, *, place: str) -> None:
    if isinstance(value, dict | list):
        if depth == 0:
            raise _misfit(place, key, value, f"it is nested more than {_MAX_DEPTH} deep")
        longest = _LONG_LISTS.get(key, _MAX_LENGTH if isinstance(value, list) else 100 * _MAX_LENGTH)
        if len(value) > longest:
            raise _misfit(place, key, value, f"it has {len(value)} entries, and at most {longest} make sense")
        items = value.items() if isinstance(value, dict) else ((key, item) for item in value)
        for name, item in items:
            _require_bounded(name, item, _NO_LIMIT.get(name), depth - 1, place=place)
    elif isinstance(value, float) and not math.isfinite(value) and value != no_limit:
        raise _misfit(place, key, value, "it must be a finite number")
    elif isinstance(value, int | float) and value != no_limit:
        largest = _largest(key)
        if abs(value) > largest:
            raise _misfit(place, key, value, f"at most {largest:g} makes sense")


def _largest(key: str) -> float:
    if re.search(r"(num|n)_(\w+_)?(layers|blocks)$|^layers_per_block$|transformer_layers_per_block", key):
        return _MAX_LAYERS
    return _LARGEST.get(key, _MAX_NUMBER)


# What a value must satisfy as an argument of its class.


def _require_fit(key: str, value: Any, parameter: inspect.Parameter, *, place: str) -> None:
    default = None if parameter.default is inspect.Parameter.empty else parameter.default
    if not _is_of_a_kind(value, _kinds(parameter)):
        raise _misfit(place, key, value, f"it must be {_said(parameter, default)}")
    if isinstance(value, list) and not value and isinstance(default, tuple | list) and len(default):
        raise _misfit(place, key, value, "it must not be empty")
    if key in _ANY_SIGN:
        return
    least, said = _least(default, whole="float" not in _kinds(parameter))
    for number in _numbers(value):
        # only whole numbers are counts where the default is null: a shift may well be below 0
        counts = default is not None or isinstance(number, int)
        if counts and (number < least or (number == least and said == "above 0")):
            raise _misfit(place, key, value, f"it must be {said}")


def _require_narrow(key: str, value: Any, *, place: str) -> None:
    if key in _LARGEST or re.search("theta|token|seq_len", key):
        return
    for number in _numbers(value):
        if isinstance(number, int) and number > _MAX_WIDTH:
            raise _misfit(place, key, value, f"at most {_MAX_WIDTH} makes sense")


def _require_few_positions(config: _Config, *, place: str) -> None:
    """Refuse a table of positions, side by side by width, that would fill a memory before any weight is looked at."""
    heads, width, patch = (config.get(key) for key in ("num_attention_heads", "attention_head_dim", "patch_size"))
    if not (isinstance(heads, int) and isinstance(width, int) and isinstance(patch, int)):
        return
    named = next((key for key in ("pos_embed_max_size", "sample_size") if isinstance(config.get(key), int)), None)
    if heads * width > _MAX_WIDTH:
        raise _misfit(place, "attention_head_dim", width, f"with {heads} heads that is wider than {_MAX_WIDTH}")
    side = 0 if named is None else config[named] // (1 if named == "pos_embed_max_size" else max(patch, 1))
    if side**2 * heads * width > _MAX_POSITIONS:
        raise _misfit(
            place, str(named), config[str(named)], f"{side} x {side} positions of {heads * width} are too many"
        )


def _least(default: Any, *, whole: bool) -> tuple[float, str]:
    """The bound of an argument, judged by its default: what starts above zero stays there."""
    known = _numbers(default)
    if known and min(known) > 0:
        return (1, "at least 1") if whole and all(isinstance(number, int) for number in known) else (0, "above 0")
    if default is None:
        return 1, "at least 1"
    if min(known, default=0) == 0 and isinstance(default, int | tuple | list):
        return 0, "at least 0"
    return -math.inf, ""


def _numbers(value: Any) -> list[int | float]:
    return [leaf for leaf in _leaves(value) if isinstance(leaf, int | float) and not isinstance(leaf, bool)]


def _leaves(value: Any) -> list[Any]:
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, tuple | list) else [value]


_SEQUENCES = {"list", "List", "tuple", "Tuple", "Sequence", "Iterable", "ndarray"}
_PLAIN_WORDS = {"typing", "numpy", "np", "collections", "abc", "Optional", "Union", "None", "NoneType"}
_LEAF_WORDS = {"int", "float", "str", "bool"}


def _kinds(parameter: inspect.Parameter) -> set[str]:
    """The kinds of JSON values that an argument takes, from its annotation and its default; ``any`` where unclear."""
    annotation = parameter.annotation
    text = annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else annotation
    words = set(re.findall(r"[A-Za-z_]+", re.sub(r"Literal\[.*?\]", "str", str(text))))
    if annotation is inspect.Parameter.empty or words - _SEQUENCES - _PLAIN_WORDS - _LEAF_WORDS:
        return {"any"}
    kinds = words & _LEAF_WORDS | ({"list"} if words & _SEQUENCES else set())
    # SDXL is published with upcast_attention: null, and null is as false as false
    kinds |= {"null"} if words & {"Optional", "None", "NoneType"} or parameter.default is False else set()
    return kinds | {_kind(leaf) for leaf in (parameter.default, *_leaves(parameter.default)) if leaf is not ...}


def _is_of_a_kind(value: Any, kinds: set[str]) -> bool:
    if "any" in kinds:
        return True
    if isinstance(value, list):
        return "list" in kinds and all(_is_of_a_kind(item, kinds) for item in value)
    kind = _kind(value)
    return kind in kinds or (kind == "int" and "float" in kinds)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, tuple | list):
        return "list"
    return type(value).__name__


def _said(parameter: inspect.Parameter, default: Any) -> str:
    words = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false", "null": "null"}
    kinds = _kinds(parameter)
    singles = [text for kind, text in words.items() if kind in kinds and not (kind == "int" and "float" in kinds)]
    of_lists = ["a list of such"] if "list" in kinds else []
    return f"{' or '.join([*singles, *of_lists])}, such as {shown(_as_json(default))}"


def _misfit(place: str, key: str, value: Any, reason: str) -> CheckpointError:
    return CheckpointError(f"{place} has {shown(key, quoted=False)}: {shown(value)}; {reason}. {CURE}.")
