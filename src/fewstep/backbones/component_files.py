"""The files of a checkpoint's components: what is there, which of them are wanted, and a local folder that has them.

The same choice of weights (:mod:`fewstep.backbones.weight_files`) decides what is downloaded, loaded and copied.
"""

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from fewstep.backbones.configurations import CURE, pipeline_parts
from fewstep.backbones.source import MODEL_INDEX, Checkpoint, find_file, locate
from fewstep.backbones.tensor_file import opened
from fewstep.backbones.weight_files import WeightFiles, choose, is_weights
from fewstep.errors import CheckpointError, shown
from fewstep.files import load_json, write_json
from fewstep.hub import hub_errors
from fewstep.pickles import require_tame_weights

Part = tuple[str, str]
"""A component's library and class, as the index names them."""
_WITHOUT_WEIGHTS = re.compile("Tokenizer|Process|Extractor|Scheduler")


@dataclass(frozen=True)
class _Listing:
    """Names of a checkpoint's files, relative to its folder.

    Attributes:
        model: For messages.
        whole: False where only what was fetched before is known, because the hub cannot be reached.
    """

    model: str
    names: frozenset[str]
    whole: bool = True

    def inside(self, component: str) -> list[str]:
        """The files of one component's folder, without that folder."""
        prefix = f"{component}/"
        found = (name.removeprefix(prefix) for name in self.names if name.startswith(prefix))
        return sorted(name for name in found if "/" not in name)

    def weights(self, component: str, part: Part) -> WeightFiles | None:
        """A component's weights; None for one that has none, such as a tokenizer.

        Raises:
            CheckpointError: They are missing, or not whole.
        """
        if _WITHOUT_WEIGHTS.search(part[1]):
            return None
        place = f"The {component} of {self.model}"
        return choose(self.inside(component), of_diffusers=part[0] == "diffusers", place=place)

    def wanted(self, component: str, part: Part) -> list[str]:
        """A component's files: its chosen weights, and everything that is no weights.

        Raises:
            CheckpointError: The folder or its weights are missing.
        """
        names = self.inside(component)
        if not names:
            raise CheckpointError(
                f"{self.model} has no folder {component}, which its {MODEL_INDEX} names; get the model again."
            )
        weights = self.weights(component, part)
        if weights is not None and "config.json" not in names:
            raise CheckpointError(f"The {component} of {self.model} has no config.json; get the model again.")
        return [*(name for name in names if not is_weights(name)), *(weights.names if weights is not None else ())]


def list_files(model: str, revision: str | None) -> _Listing:
    """List a checkpoint's files; nothing is fetched."""
    source = locate(model)
    if os.path.isdir(source):
        return _Listing(model, frozenset(_local(Path(source))))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import DryRunError

    try:
        found = snapshot_download(source, revision=revision, dry_run=True)
    except DryRunError:  # the hub cannot be reached: what the cache has is what there is
        index = find_file(source, MODEL_INDEX, revision=revision)
        return _Listing(model, frozenset(_local(index.parent)) if index is not None else frozenset(), whole=False)
    return _Listing(model, frozenset(file.filename for file in found))


def _local(folder: Path) -> Iterable[str]:
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        yield from (path.relative_to(folder).as_posix() for path in place.iterdir() if path.is_file())


def fetch_parts(listing: _Listing, revision: str | None, parts: Mapping[str, Part]) -> Path:
    """A local folder with the wanted files of some components, fetching what is missing.

    Raises:
        CheckpointError: A component or its weights are missing.
    """
    wanted = {name: listing.wanted(name, part) for name, part in parts.items()}
    source = locate(listing.model)
    if os.path.isdir(source):
        folder = Path(source)
    else:
        from huggingface_hub import snapshot_download

        names = [MODEL_INDEX, *(f"{component}/{name}" for component in wanted for name in wanted[component])]
        with hub_errors(source, revision):
            folder = Path(snapshot_download(source, revision=revision, allow_patterns=names))
    for name, part in parts.items():
        weights = listing.weights(name, part)
        if weights is not None:
            _require_own_shards(folder / name, weights)
            _require_tame(folder / name, weights)
    return folder


def missing_parts(checkpoint: Checkpoint) -> list[str]:
    """What a checkpoint's index names and its files lack, one sentence each."""
    listing = list_files(checkpoint.model, checkpoint.revision)
    told = []
    for name, part in pipeline_parts(checkpoint.components["model_index"]).items() if listing.whole else ():
        try:
            listing.wanted(name, part)
        except CheckpointError as error:
            told.append(str(error))
    return told


def attached_loras(checkpoint: Checkpoint) -> list[str]:
    """One sentence for each component of a local folder that was saved with a LoRA attached; headers are read alone."""
    folder = Path(locate(checkpoint.model))
    if not folder.is_dir():
        return []
    listing = list_files(checkpoint.model, checkpoint.revision)
    told = []
    for name, part in pipeline_parts(checkpoint.components["model_index"]).items():
        weights = listing.weights(name, part)
        files = () if weights is None else weights.names if weights.index is None else (weights.index,)
        keys = [key for file in files for key in _tensor_names(folder / name / file)]
        problem = attached_lora(f"The {name} of {checkpoint.model}", keys)
        told += [problem] if problem else []
    return told


def attached_lora(place: str, keys: Iterable[str]) -> str | None:
    """What is wrong with weights of these names when a LoRA is still attached to their network."""
    attached = sorted(key for key in keys if ".base_layer." in key or ".lora_" in key)
    if not attached:
        return None
    return (
        f"{place} was saved with a LoRA attached to it ({len(attached)} of its weights, first "
        f"{shown(attached[0], quoted=False)}): fuse and unload the LoRA before saving (fuse_lora, "
        "unload_lora_weights), or take the model without it and name the LoRA in backbone.lora."
    )


def _tensor_names(path: Path) -> list[str]:
    """The names in a file of weights or in an index of shards; none in a pickle, which only loading would tell."""
    if path.suffix == ".json":
        return list(_index(path)["weight_map"])
    if path.suffix != ".safetensors":
        return []
    with opened(path, what="The weights", cure=CURE) as file:
        return list(file.keys())


def copy_part(source: Path, target: Path, listing: _Listing, part: Part) -> None:
    """Copy a component's wanted files; weights of a variant get plain names, so that any loader finds them."""
    name = source.name
    weights = listing.weights(name, part)
    target.mkdir()
    for file in listing.wanted(name, part):
        plain = weights.plain_name(file) if weights is not None and file in weights.names else file
        if weights is not None and file == weights.index:
            index = _index(source / file)
            placed = {key: weights.plain_name(shard) for key, shard in index["weight_map"].items()}
            write_json(target / plain, {**index, "weight_map": placed})
        else:
            shutil.copyfile(source / file, target / plain)


def _require_tame(folder: Path, weights: WeightFiles) -> None:
    for name in weights.tensors:
        if weights.safetensors:
            _tensor_names(folder / name)  # opened and counted
            continue
        try:
            require_tame_weights(folder / name)
        except (OSError, UnpicklingError) as error:
            raise CheckpointError(f"The weights {folder / name} cannot be read ({error}). {CURE}.") from error


def _require_own_shards(folder: Path, weights: WeightFiles) -> None:
    if weights.index is None:
        return
    file = folder / weights.index
    foreign = sorted(set(_index(file)["weight_map"].values()) - set(weights.names))
    if foreign:
        raise CheckpointError(
            f"{file} lists {shown(foreign[0], quoted=False)}, which is none of the shards beside it. {CURE}."
        )


def _index(path: Path) -> dict[str, Any]:
    index = load_json(path, dict[str, Any], cure=CURE)
    placed = index.get("weight_map")
    if not isinstance(placed, dict) or not all(isinstance(shard, str) for shard in placed.values()):
        raise CheckpointError(f"{path} has no weight_map of names of files. {CURE}.")
    return index
