"""Which settings exist where: walks the config types, so that a wrong key can be answered with the right ones."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from fewstep.config.layers import DISCRIMINATORS


def fields_of(kind: type) -> dict[str, Any]:
    """Names and types of the settings of a model or dataclass; none for any other type."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    return {}


def alternatives(annotation: Any) -> tuple[type, ...]:
    """The types an annotation admits that have settings of their own; those of its items when it is a list."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType, tuple):
        return tuple(kind for member in get_args(annotation) for kind in alternatives(member))
    return (annotation,) if fields_of(annotation) else ()


def tag_of(kind: type) -> str | None:
    """What a member of a choice calls itself: the literal of its ``kind``, ``law``, ``at`` or ``mode``."""
    for name, annotation in fields_of(kind).items():
        if name in DISCRIMINATORS and get_origin(annotation) is Literal:
            return str(get_args(annotation)[0])
    return None


def _choose(annotation: Any, settings: Any) -> type | None:
    """The one type that ``settings`` mean: the only one there is, or the one whose tag they state."""
    kinds = alternatives(annotation)
    if len(kinds) == 1:
        return kinds[0]
    if not isinstance(settings, Mapping):
        return None
    # a choice without a tag is told by the key that only one of its members has
    stated = [settings[key] for key in DISCRIMINATORS if key in settings] or list(settings)
    return next((kind for kind in kinds if tag_of(kind) in stated), None)


def real_path(
    root: type,
    location: Sequence[str | int],
    settings: Any,
    *,
    refine: Callable[[type, Any], type] = lambda kind, _: kind,
) -> tuple[tuple[str | int, ...], type | None]:
    """Strip the tags that pydantic puts into a location, and find the type that owns its last key.

    Args:
        root: The type of the whole.
        location: Of an error: keys, indices, and the tag of every choice on the way.
        settings: The whole as it was stated.
        refine: The class that a section really has when these are its settings, where packages may add some.

    Returns:
        The path as the user writes it, and the type its last key should be a setting of (None inside a list).
    """
    path: list[str | int] = []
    owner: type | None = root
    entered: Any = None
    for key in location:
        if isinstance(key, int) and entered is not None:
            path.append(key)
            settings = settings[key] if isinstance(settings, list) and key < len(settings) else None
            continue
        if entered is not None:
            owner, entered = _choose(entered, settings), None
            if owner is not None and key == tag_of(owner):
                continue
            owner = owner and refine(owner, settings)
        path.append(key)
        entered = fields_of(owner).get(str(key)) if owner else None
        settings = settings.get(key) if isinstance(settings, Mapping) else None
    return tuple(path), owner


def leaf_paths(root: type, prefix: str = "") -> Iterator[str]:
    """Dotted paths of every setting below ``root``, those of all alternatives included; a list is one setting."""
    for name, annotation in fields_of(root).items():
        kinds = () if get_origin(annotation) is tuple else alternatives(annotation)
        if not kinds:
            yield prefix + name
        for kind in kinds:
            yield from leaf_paths(kind, f"{prefix}{name}.")
