"""Write a metric's checkpoint once, as safetensors with the network's own names, in a folder that the metric loads."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

import fewstep
from fewstep.errors import ConfigError
from fewstep.files import explain_write_errors, whole_folder, write_json
from fewstep.scores.checkpoints.reading import RECORD_FILE, SAFETENSORS
from fewstep.scores.checkpoints.source import Source, fetch_file
from fewstep.scores.metric import Metric
from fewstep.scores.networks.network import CONFIG_FILE
from fewstep.scores.networks.prompt_rows import TOKENIZER_FILE
from fewstep.scores.registry import create_metrics, metric_class, metric_names


def convert(
    metric: str,
    source: str,
    output: str | Path,
    *,
    revision: str | None = None,
    allow_pickle: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write the checkpoint of ``metric`` as a folder of its own, whole or not at all.

    Args:
        metric: The metric's name.
        source: Hub id, local folder, or file.
        output: The folder; it may exist if it is empty.
        revision: Branch, tag or commit of a repository.
        allow_pickle: Whether a pickle may be read, through ``weights_only``.
        settings: Further settings of the metric, such as where its tokenizer is.

    Returns:
        The folder: ``model.safetensors``, ``config.json``, where it is needed ``tokenizer.json``, and a record of what
        was converted.

    Raises:
        ConfigError: There is no such metric, it has no checkpoint, the source lacks something, or ``output`` is not
            empty.
        CheckpointError: The checkpoint is damaged.
    """
    stated = {**(settings or {}), "source": source, "revision": revision, "allow_pickle": allow_pickle}
    chosen = _convertible(metric, stated)
    target = Path(output)
    with explain_write_errors(target):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ConfigError(f"{target} is not an empty folder. Choose another --output, or remove it.")
    chosen.check([])
    _write(chosen, Source(metric, source, revision), target)
    return target


def _convertible(name: str, settings: Mapping[str, Any]) -> Metric:
    if metric_class(name).card.source is None:
        able = ", ".join(other for other in metric_names() if metric_class(other).card.source is not None)
        raise ConfigError(f"The metric {name} has no checkpoint that can be converted; those that have: {able}.")
    return create_metrics([name], {name: settings})[0]


def _write(metric: Metric, source: Source, target: Path) -> None:
    from safetensors.torch import save_file

    network = metric.networks[0]
    stored = network.read()
    with explain_write_errors(target), whole_folder(target, doing="converting") as folder:
        save_file(_apart(stored.tensors), folder / SAFETENSORS[0], metadata={"format": "pt"})
        if stored.tokenizer is not None:
            shutil.copyfile(stored.tokenizer, folder / TOKENIZER_FILE)
        for name in set(network.files) - {CONFIG_FILE, TOKENIZER_FILE}:
            shutil.copyfile(fetch_file(network.checkpoint, name), folder / name)
        write_json(folder / CONFIG_FILE, dict(stored.config))
        write_json(folder / RECORD_FILE, _record(metric, source))


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no memory, as safetensors wants them."""
    seen: set[int] = set()
    apart: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.contiguous() if place not in seen else tensor.clone()
        seen.add(place)
    return apart


def _record(metric: Metric, source: Source) -> dict[str, Any]:
    """What the folder was made from; a local place is named without its path."""
    name = source.name if source.local is None else Path(source.name).name
    return {
        "metric": metric.card.name,
        "source": name,
        "revision": source.revision,
        "fewstep": fewstep.__version__,
        "card": dataclasses.asdict(metric.card),
    }
