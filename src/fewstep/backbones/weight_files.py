"""Which weight files belong to a component: from the names in its folder alone.

People keep weights in many ways at once: full and in half precision, whole and in shards, as safetensors and as
pickles. One choice is made here, and loading, exporting, downloading and checking all follow it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fewstep.errors import CheckpointError, shown

_STEMS = {True: ("diffusion_pytorch_model", "diffusion_pytorch_model"), False: ("model", "pytorch_model")}
"""How diffusers, and everything else, names its safetensors and its pickles."""
_WEIGHTS = re.compile(
    r"(?P<stem>\w+?)(\.(?P<before>\w+))?(-(?P<shard>\d{5})-of-(?P<count>\d{5}))?(\.(?P<after>\w+))?"
    r"\.(?P<kind>safetensors|bin)"
)
_INDEX = re.compile(r"(?P<stem>\w+)\.(?P<kind>safetensors|bin)\.index(\.(?P<variant>\w+))?\.json")
_OTHER_WEIGHTS = re.compile(r".*\.(safetensors|bin|ckpt|pt|pth|msgpack|h5|onnx|onnx_data|pb|gguf|tflite|xml|dduf)")
_FIRST = ("fp32", "bf16", "fp16")
_LAST = ("non_ema",)
_MAX_SHARDS = 2000


@dataclass(frozen=True)
class WeightFiles:
    """The weights of one component.

    Attributes:
        names: Files in the component's folder: one, or shards and their index.
        variant: What diffusers and transformers call it, such as ``fp16``; None for plain names.
        safetensors: Whether they are safetensors; else pickles, of which only tensors are ever read.
    """

    names: tuple[str, ...]
    variant: str | None
    safetensors: bool

    @property
    def index(self) -> str | None:
        return next((name for name in self.names if name.endswith(".json")), None)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The files that hold them."""
        return tuple(name for name in self.names if name != self.index)

    def plain_name(self, name: str) -> str:
        """A name without the variant, as a folder has it whose only weights these are."""
        return name if self.variant is None else name.replace(f".{self.variant}", "", 1)

    def __str__(self) -> str:
        kind = "safetensors" if self.safetensors else "pickles (.bin)"
        shards = len(self.names) - 1
        sharded = f" in {shards} {'shard' if shards == 1 else 'shards'}" if shards else ""
        return f"{kind}{sharded}" if self.variant is None else f"{self.variant} {kind}{sharded}"


def choose(names: Iterable[str], *, of_diffusers: bool, place: str) -> WeightFiles:
    """Choose a component's weights among the files of its folder.

    Full weights come before variants of less precision, safetensors before pickles of the same; among variants
    ``bf16`` before ``fp16``, and ``non_ema`` last. What comes first has to be whole: an incomplete download is no
    reason for other numbers.

    Args:
        names: Files, without their folder.
        of_diffusers: Whether diffusers loads the component; transformers names its files otherwise.
        place: The component, for messages.

    Raises:
        CheckpointError: There are none, or shards or their index are missing.
    """
    present = set(names)
    found = sorted({pair for name in present if (pair := _kind(name, of_diffusers)) is not None}, key=_rank)
    if not found:
        raise CheckpointError(f"{place} has no weights{_instead(present, of_diffusers)}. Get the model again.")
    kind, variant = found[0]
    stem = _STEMS[of_diffusers][kind == "bin"]
    whole = f"{stem}{'' if variant is None else f'.{variant}'}.{kind}"
    if whole in present:
        return WeightFiles((whole,), variant, kind == "safetensors")
    return WeightFiles(_shards(present, stem, kind, variant, place), variant, kind == "safetensors")


def is_weights(name: str) -> bool:
    """Whether a file holds weights in any layout, or lists those that do."""
    return bool(_OTHER_WEIGHTS.fullmatch(name) or _INDEX.fullmatch(name))


def _kind(name: str, of_diffusers: bool) -> tuple[str, str | None] | None:
    """The kind and the variant of a file of weights or of their index; None for any other file."""
    match = _WEIGHTS.fullmatch(name) or _INDEX.fullmatch(name)
    if match is None or match["stem"] != _STEMS[of_diffusers][match["kind"] == "bin"]:
        return None
    groups = match.groupdict()
    return match["kind"], groups.get("variant") or groups.get("before") or groups.get("after")


def _rank(found: tuple[str, str | None]) -> tuple[int, int, str, bool]:
    kind, variant = found
    if variant is None:
        return 0, 0, "", kind == "bin"
    first = _FIRST.index(variant) if variant in _FIRST else len(_FIRST)
    return 2 if variant in _LAST else 1, first, variant, kind == "bin"


def _shards(present: set[str], stem: str, kind: str, variant: str | None, place: str) -> tuple[str, ...]:
    """The index and the shards of sharded weights, every one of them there."""
    shards = {}
    for name in present:
        match = _WEIGHTS.fullmatch(name)
        if match is None or not match["shard"]:
            continue
        if (match["stem"], match["kind"], match["before"] or match["after"]) == (stem, kind, variant):
            shards[name] = match
    index = f"{stem}.{kind}.index{'' if variant is None else f'.{variant}'}.json"
    counts = {int(match["count"]) for match in shards.values()}
    absent = [] if index in present else [index]
    if len(counts) > 1:
        raise CheckpointError(f"{place} mixes shards of {len(counts)} sets of weights. Get the model again.")
    count = min(counts.pop() if counts else 0, _MAX_SHARDS)
    numbers = {int(match["shard"]) for match in shards.values()}
    example = next(iter(shards), f"{stem}.{kind}")
    absent += [
        re.sub(r"-\d{5}-of", f"-{number:05}-of", example) for number in range(1, count + 1) if number not in numbers
    ]
    if absent or not shards:
        listed = ", ".join(shown(name, quoted=False) for name in (absent or ["its shards"])[:3])
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise CheckpointError(
            f"{place} lacks {listed}{more}, without which its weights are not whole. Get the model again."
        )
    return (index, *sorted(shards))


def _instead(present: set[str], of_diffusers: bool) -> str:
    others = sorted(name for name in present if _OTHER_WEIGHTS.fullmatch(name))
    if not others:
        return ""
    wanted = f"{_STEMS[of_diffusers][0]}.safetensors"
    return f" of a name that is loaded, such as {wanted}; it holds {_listed(others)}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(shown(name, quoted=False) for name in names[:3]) + more
