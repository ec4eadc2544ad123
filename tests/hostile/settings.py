"""Hostile settings: every setting of every kind with values that it cannot have, and recipes no longer whole."""

import random
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from fewstep.backbones.protocol import BackboneConfig
from fewstep.backbones.registry import adapter_class, backbone_kinds
from fewstep.config import RunConfig
from fewstep.config.recipe_files import recipe_source
from fewstep.config.schema import alternatives, fields_of, tag_of
from tests.hostile.judge import Case

# of metrics that another part knows: they are checked where the metric is made
FREE = {"evaluation.settings"}
KINDS = ("kind", "law", "at", "mode")
# what a section needs besides the setting that is tried
NEEDED = {
    "prompts.file": "path: p.txt",
    "prompts.hub": "dataset: d, column: c",
    "evaluation": "every: 1, metrics: [mse]",
}


def plain_types(annotation: Any) -> set[type]:
    """The numbers and texts that an annotation admits."""
    if get_origin(annotation) in (Union, UnionType, tuple):
        return {kind for member in get_args(annotation) for kind in plain_types(member)}
    if get_origin(annotation) is Annotated:
        return plain_types(get_args(annotation)[0])
    return {annotation} & {int, float, str}


def settings_of(owner: type, path: tuple[str, ...] = (), above: tuple[str, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Overrides that choose a kind of settings, the path of one of these, and the type of its values."""
    for name, annotation in fields_of(owner).items():
        here = (*path, name)
        kinds: tuple[type, ...] = alternatives(annotation)
        if BackboneConfig in kinds:
            kinds = tuple(adapter_class(kind).config_class for kind in backbone_kinds())
        if kinds and get_origin(annotation) is tuple:
            kinds = ()  # a list of settings: its items are tried below
        for kind in kinds:
            tag, key = tag_of(kind), next((key for key in KINDS if key in fields_of(kind)), None)
            needed = NEEDED.get(".".join([*here, tag] if tag else here), "model: m" if name == "backbone" else "")
            stated = ", ".join(part for part in (f"{key}: {tag}" if tag else "", needed) if part)
            chosen = (f"{'.'.join(here)}={{{stated}}}",) if stated else ()
            yield from settings_of(kind, here, above + chosen)
        if ".".join(here) not in FREE and name not in KINDS:
            for plain in sorted(plain_types(annotation), key=str):
                yield above, ".".join(here), plain, get_origin(annotation) is tuple or "tuple" in str(annotation)


TEXTS = (
    *(
        "null",
        "true",
        "-1",
        "0",
        "1",
        "2",
        "3.5",
        "-0.0",
        "1e-320",
        "1e400",
        ".nan",
        ".inf",
        "-.inf",
        "9" * 39,
        "9" * 5000,
    ),
    *(
        "1" + "0" * 30,
        "-1" + "0" * 30,
        "1e300",
        "''",
        "x",
        "x" * 5000,
        r'"\ud800"',
        r'"\0"',
        r'"\e[31m"',
        "'1'",
        "[]",
        "{}",
    ),
    *("[[[[]]]]", "[null, null]", "[1, 1, 1, 1]", "[" * 5000, "{a: " * 5000, "{kind: x}", "{law: [], kind: {}, at: 3}"),
    *(
        "&a [*a]",
        "!!python/object/apply:os.system [touch ../canary]",
        "!!binary aGk=",
        "? [a]",
        "{1: 2}",
        "a: b: c",
        "*x",
    ),
    *(
        "[" + ", ".join(["0.5"] * 4000) + "]",
        "{" + ", ".join(f"k{i}: 1" for i in range(3000)) + "}",
        "\x1b[31m",
        "\udcff",
    ),
    *("~nobody/x", "/dev/zero", "/dev/stdin", "../" * 500, "a" * 300, "\u202ea", "0x10", "1_000", "1:30", "yes"),
)
"""Values of an override, as they are typed."""

KEYS = (
    "student.lr ",
    ".",
    "a..b",
    "student.\x1b[31m",
    "\udcff",
    "x" * 10_000,
    "student." * 3000 + "lr",
    "batch.a",
    "terms.dm.0",
)


def hostile_overrides(count: int) -> list[Case]:
    """So many overrides of a built-in recipe, the same each time."""
    chance = random.Random(0)
    every = [(above, f"{path}={text}") for above, path, _, _ in settings_of(RunConfig) for text in TEXTS]
    every += [((), f"{path}={text}") for path in sections() for text in TEXTS]
    every += [((), f"{key}=1") for key in KEYS]
    chance.shuffle(every)
    return [
        Case(f"override {number}", ("recipe", "show", "digits", *above, override))
        for number, (above, override) in enumerate(every[:count])
    ]


def sections(owner: type = RunConfig, path: str = "") -> Iterator[str]:
    """Where a recipe has mappings: their places take anything else badly."""
    for name, annotation in fields_of(owner).items():
        for kind in alternatives(annotation)[:1]:
            yield path + name
            yield from sections(kind, f"{path}{name}.")


def hostile_recipes(count: int) -> list[Case]:
    """So many recipe files that were whole before some bytes were cut out, doubled, swapped or replaced."""
    chance = random.Random(0)
    text = recipe_source("sd3-medium").encode()
    return [_recipe(number, _broken(text, chance)) for number in range(count)]


def _broken(text: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(text))
        end = min(len(text), start + chance.choice((1, 2, 5, 20, 100)))
        piece = text[start:end]
        new = chance.choice(
            (
                b"",
                piece * 2,
                piece[::-1],
                chance.randbytes(2),
                b"\t",
                b"\xff",
                b"*a",
                b"&a ",
                b"!!x ",
                b": ",
                b"- ",
                b"{",
                b"]",
                b"\n",
            )
        )
        text = text[:start] + new + text[end:] or b" "
    return text


def _recipe(number: int, content: bytes) -> Case:
    def prepare(folder: Any) -> None:
        (folder / "mine.yaml").write_bytes(content)

    return Case(f"recipe {number}", ("recipe", "show", "mine.yaml", "--resolved"), prepare)
