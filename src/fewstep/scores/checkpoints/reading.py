"""Where a metric's checkpoint is, whether it is there, and its tensors: safetensors first, pickles only when allowed.

A source is a Hugging Face repository id, a local folder, or one file. :func:`check_source` loads nothing and downloads
nothing; :func:`read_tensors` and :func:`fetch_file` may download where the hub can be reached.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from fewstep.errors import CheckpointError, ConfigError, shown
from fewstep.files import UnreadableError, load_json
from fewstep.pickles import require_tame_weights
from fewstep.scores.checkpoints.source import Source, fetch_file, find_file, has_file, is_present, missing_files
from fewstep.tensors import opened_tensors

_CURE = "Get the checkpoint again"
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
# what `convert` writes beside the weights
RECORD_FILE = "fewstep-metric.json"


@dataclass(frozen=True)
class StoredNetwork:
    """What a converted folder holds.

    Attributes:
        config: The content of its ``config.json``.
        tensors: The content of its ``model.safetensors``.
        tokenizer: The ``tokenizer.json`` that goes with it, or None.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    tokenizer: Path | None = None


def check_source(source: Source, *, weights: Sequence[str] | None = (), others: Sequence[str] = ()) -> None:
    """Find out whether a source has what is needed; loads and downloads nothing.

    Args:
        source: Where.
        weights: Names that its weights file may have beside the usual ones; None when no weights are needed.
        others: Further files, each of them needed.

    Raises:
        ConfigError: Something is missing, or it is a pickle and pickles are not allowed; says which command helps.
    """
    wanted: list[str] = []
    _refuse_other_metric(source)
    if weights is not None:
        found = _present_weights(source, weights)
        if found is None:
            wanted.append(_described(weights))
        elif _is_pickle(found):
            _refuse_pickle(source, found)
        elif found.endswith(".index.json") and (index := find_file(source, found)) is not None:
            wanted += [shard for shard in _shards(index) if not is_present(source, shard)]
    wanted += [name for name in others if not is_present(source, name)]
    if wanted:
        raise ConfigError(missing_files(source, wanted))


def read_tensors(
    source: Source, *, weights: Sequence[str] = (), keep: Callable[[str], bool] | None = None
) -> dict[str, Tensor]:
    """Read a source's tensors by their stored names.

    Args:
        source: Where.
        weights: Names that the weights file may have beside the usual ones.
        keep: Which tensors are wanted; all when None.

    Raises:
        ConfigError: There is no weights file, or it is a pickle and pickles are not allowed.
        CheckpointError: The file is damaged or holds no table of tensors.
    """
    name = _present_weights(source, weights)
    if name is None:
        check_source(source, weights=weights)
        raise CheckpointError(f"The weights of {source.name} vanished while {source.metric} was reading them.")
    if _is_pickle(name):
        _refuse_pickle(source, name)
    path = fetch_file(source, name)
    paths = [fetch_file(source, shard) for shard in _shards(path)] if name.endswith(".index.json") else [path]
    tensors: dict[str, Tensor] = {}
    for part in paths:
        tensors.update(_read_pickle(part) if _is_pickle(part.name) else _read_safetensors(part, keep))
    return {key: value for key, value in tensors.items() if keep is None or keep(key)}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: It is not one.
    """
    return load_json(path, dict[str, Any], cure=_CURE)


def build_network(
    source: Source,
    network_class: Any,
    config: Any,
    tensors: Mapping[str, Tensor] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    others: tuple[str, ...] = (),
    **options: Any,
) -> nn.Module:
    """Build a transformers network with a checkpoint's weights and no others, in eval mode.

    Args:
        source: The checkpoint, in transformers' format unless ``tensors`` are given.
        network_class: Of transformers.
        config: Its configuration.
        tensors: The weights where the checkpoint has other names for them.
        dtype: In which the network calculates.
        others: What the names of weights begin with that the checkpoint holds for other networks.
        options: For the network's constructor.

    Raises:
        CheckpointError: The file is damaged; or a weight is missing, unknown or of another shape, the first is named.
    """
    from safetensors import SafetensorError

    place, given = _transformers_folder(source) if tensors is None else (None, {"state_dict": dict(tensors)})
    try:
        with _quiet():
            network, info = network_class.from_pretrained(
                place,
                config=config,
                dtype=dtype,
                ignore_mismatched_sizes=True,  # reported below, by name
                output_loading_info=True,
                **given,
                **options,
            )
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"The weights of {source.name} cannot be read ({error}). {_CURE}.") from error
    # older files store counting tensors (0, 1, 2, ...)
    unknown = [name for name in info["unexpected_keys"] if not name.startswith(others)]
    wrong = [*info["missing_keys"], *(name for name in unknown if not name.endswith("position_ids"))]
    _refuse_wrong_keys(source, [*wrong, *(entry[0] for entry in info["mismatched_keys"])])
    built: nn.Module = network.eval().requires_grad_(False)
    return built


def _transformers_folder(source: Source) -> tuple[Path | None, dict[str, Any]]:
    """What ``from_pretrained`` is given: the folder with a safetensors, or the tensors of any other file."""
    name = _present_weights(source, ())
    if name not in SAFETENSORS:
        return None, {"state_dict": read_tensors(source)}
    path = fetch_file(source, name)
    if name.endswith(".index.json"):
        for shard in _shards(path):
            fetch_file(source, shard)
    return path.parent, {"use_safetensors": True}


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what transformers prints while it loads."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _refuse_wrong_keys(source: Source, wrong: Sequence[str]) -> None:
    """Raise a CheckpointError that names the first of the weights that do not fit."""
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} weights of {source.name} are missing, unknown or of another shape for {source.metric}, "
            f"first {min(wrong)}. It is another checkpoint than {source.metric} reads; see its card for the right one."
        )


def _refuse_other_metric(source: Source) -> None:
    local = source.local
    if local is not None and (local / RECORD_FILE).is_file():
        made_for = read_json(local / RECORD_FILE).get("metric")
        if made_for != source.metric:
            raise ConfigError(
                f"{source.name} was converted for {made_for}, so {source.metric} cannot read it. Convert the "
                f"checkpoint of {source.metric} with `fewstep evaluate convert {source.metric} SOURCE --output FOLDER`."
            )


def _present_weights(source: Source, own: Sequence[str]) -> str | None:
    """The name of the weights file that is used: a safetensors anywhere goes before a pickle anywhere."""
    safe = [*(name for name in own if not _is_pickle(name)), *SAFETENSORS]
    pickles = [*(name for name in own if _is_pickle(name)), *_PICKLES]
    local = source.local
    if local is not None and local.is_file():
        return local.name
    if local is not None:
        safe += _only(local, ".safetensors")
        pickles += _only(local, *_PICKLE_SUFFIXES)
    for names in (safe, pickles):
        for is_there in (has_file, is_present):
            for name in names:
                if is_there(source, name):
                    return name
    return None


def _only(folder: Path, *suffixes: str) -> list[str]:
    """The one file of a folder with such a suffix, if there is exactly one."""
    names = [path.name for path in folder.iterdir() if path.suffix in suffixes]
    return names if len(names) == 1 else []


def _is_pickle(name: str) -> bool:
    return name.removesuffix(".index.json").endswith(_PICKLE_SUFFIXES)


def _refuse_pickle(source: Source, name: str) -> None:
    if not source.allow_pickle:
        place = source.name if source.setting == "source" else "SOURCE"
        raise ConfigError(
            f"The checkpoint of {source.metric} at {source.name} is a pickle ({name}), a kind of file that can hold "
            f"code: convert it once with `fewstep evaluate convert {source.metric} {place} --output FOLDER "
            f"--allow-pickle`, which reads tensors only, and score with --set {source.metric}.source=FOLDER."
        )


def _described(own: Sequence[str]) -> str:
    """The weights file to ask for, and the others that would do."""
    safe, pickles = [name for name in own if not _is_pickle(name)], [name for name in own if _is_pickle(name)]
    names = [*(safe or SAFETENSORS[:1]), *pickles]
    return names[0] if len(names) == 1 else f"{names[0]} (or {', '.join(names[1:])})"


class _Index(BaseModel):
    weight_map: dict[str, str] = Field(min_length=1)


def _shards(index: Path) -> list[str]:
    shards = sorted(set(load_json(index, _Index, cure=_CURE).weight_map.values()))
    for shard in shards:
        # names of files beside the index: nothing that leads elsewhere
        if Path(shard).name != shard or shard in ("", "..") or "\\" in shard:
            raise CheckpointError(f"{index} cannot be used: it names {shown(shard)} as a file beside it. {_CURE}.")
    return shards


def _read_safetensors(path: Path, keep: Callable[[str], bool] | None) -> dict[str, Tensor]:
    try:
        with opened_tensors(path) as opened:
            return {name: opened.get_tensor(name) for name in opened.keys() if keep is None or keep(name)}  # noqa: SIM118
    except UnreadableError as error:
        raise CheckpointError(f"{path} cannot be read ({error}). Get the checkpoint again.") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    from pickle import UnpicklingError

    try:
        require_tame_weights(path)
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, OSError) as error:
        detail = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} holds more than tensors, or is damaged ({detail}). Nothing in it was run; get the checkpoint "
            "again, or a safetensors copy of it."
        ) from error
    for name in ("state_dict", "model"):
        if isinstance(stored, dict) and isinstance(stored.get(name), dict):
            stored = stored[name]
    tensors = {str(name): value for name, value in stored.items()} if isinstance(stored, dict) else {}
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f"{path} is not a table of tensors by name. Give the file that holds the state dict.")
    return tensors
