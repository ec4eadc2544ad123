"""Where a checkpoint's files are, and what its JSON files say, without loading a weight.

A model is a local diffusers folder, a Hugging Face repository id, or the name of the teacher inside the package.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.backbones.configurations import CURE, Components, complete, complete_components, pipeline_parts
from fewstep.backbones.facts import FACTS_FILE, ModelFacts, read_facts
from fewstep.embedded.task import EmbeddedTask
from fewstep.embedded.tasks import TASKS
from fewstep.errors import CheckpointError, ConfigError, shown
from fewstep.files import load_json
from fewstep.hub import hub_errors

EMBEDDED_TEACHER = "fewstep:digits"
"""The one that is taken where none is named."""
_EMBEDDED = "fewstep:"
MODEL_INDEX = "model_index.json"
_MAX_CONFIG_BYTES = 4 * 2**20
"""Published ones have some thousand bytes."""


@dataclass(frozen=True)
class Checkpoint:
    """A pipeline's description: its JSON files made whole and, when the folder has one, its ``fewstep.json``.

    Attributes:
        model: The name the user gave.
        components: ``model_index`` as it is, and the configuration of each component by its name, with the defaults
            of its class in place of what the file leaves out: nobody below has to guess one.
    """

    model: str
    revision: str | None
    components: Components
    facts: ModelFacts | None

    @property
    def pipeline_class(self) -> str:
        return shown(self.components["model_index"].get("_class_name", "pipeline of no class"), quoted=False)

    @property
    def adapter_components(self) -> Components:
        """``components`` with the clock of the teacher, also for a student."""
        if self.facts is None or self.facts.scheduler is None:
            return self.components
        place = f"The scheduler in {FACTS_FILE} of {self.model}"
        return {**self.components, "scheduler": complete(self.facts.scheduler, place=place)}


def locate(model: str) -> str:
    """Turn a model's name into what ``from_pretrained`` takes: a folder or a repository id."""
    task = embedded_task(model)
    return model if task is None else str(task.teacher_folder())


def embedded_task(model: str) -> EmbeddedTask[Any] | None:
    """The task of a teacher inside the package; None of any other model.

    Raises:
        ConfigError: The name is that of a teacher inside the package, and there is none such.
    """
    if not model.startswith(_EMBEDDED):
        return None
    name = model.removeprefix(_EMBEDDED)
    known = {task.name: task for task in TASKS.values() if task.has_teacher}
    if name not in known:
        inside = ", ".join(f"{_EMBEDDED}{task}" for task in known)
        raise ConfigError(f"{shown(model, quoted=False)} is not a model inside fewstep; inside is {inside}.")
    return known[name]


def open_checkpoint(model: str, revision: str | None = None) -> Checkpoint:
    """Read the JSON files of a pipeline.

    Raises:
        ConfigError: There is no such folder or repository, it is gated, the hub cannot be reached, or it is not a
            diffusers pipeline.
    """
    source = locate(model)
    index_file = find_file(source, MODEL_INDEX, revision=revision)
    if index_file is None:
        raise ConfigError(
            f"{model} has no {MODEL_INDEX}, so it is not a diffusers pipeline. "
            "Give the folder or repository that holds it, not one of its components or a single weights file."
        )
    components: dict[str, Mapping[str, Any]] = {"model_index": _read_config(index_file)}
    for name, (library, class_name) in pipeline_parts(components["model_index"]).items():
        if not re.fullmatch(r"[A-Za-z_]\w{0,99}", name):
            raise CheckpointError(f"{index_file} names the component {shown(name)}, which is no folder's name. {CURE}.")
        config = _component_config(source, name, class_name, revision)
        if config is not None:
            components[name] = config
        elif library == "diffusers":
            stated = shown(class_name, quoted=False)
            raise ConfigError(f"{model} names a {stated} as its {name} but holds no configuration of it. {CURE}.")
    facts_file = find_file(source, FACTS_FILE, revision=revision)
    facts = read_facts(facts_file) if facts_file else None
    return Checkpoint(model, revision, complete_components(components, place=model), facts)


def find_file(source: str, name: str, *, revision: str | None) -> Path | None:
    """A file of the checkpoint, fetched when ``source`` is a repository; None when there is no such file."""
    if os.path.isdir(source):
        path = Path(source, name)
        return path if path.is_file() else None
    if source.startswith((".", "/", "~")) or source.count("/") > 1 or os.path.exists(source):
        one_file = " One file of weights needs backbone.components in a recipe." if source.endswith("tensors") else ""
        raise ConfigError(
            f"{source} is not a folder. Give a diffusers folder or a Hugging Face repository id.{one_file}"
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with hub_errors(source, revision):
        try:
            return Path(hf_hub_download(source, name, revision=revision))
        except LocalEntryNotFoundError:
            if name == MODEL_INDEX:
                raise
            return None  # offline, with the index in the cache: a file that was never fetched is not part of the model
        except EntryNotFoundError:
            return None


def fetch_folder(model: str, revision: str | None, *, folders: Sequence[str], skip: Sequence[str]) -> Path:
    """A local folder with the checkpoint's ``folders``, fetching what is missing except the patterns in ``skip``.

    Repositories often hold the whole model once more as single files beside the folders.
    """
    source = locate(model)
    if os.path.isdir(source):
        return Path(source)
    from huggingface_hub import snapshot_download

    with hub_errors(source, revision):
        wanted = [MODEL_INDEX, *(f"{name}/*" for name in folders)]
        return Path(snapshot_download(source, revision=revision, allow_patterns=wanted, ignore_patterns=list(skip)))


@contextmanager
def loading(model: str, revision: str | None, place: str) -> Iterator[None]:
    """Load weights quietly; a file that cannot be read becomes a sentence that names ``place``."""
    try:
        with hub_errors(locate(model), revision), quiet_loading(model):
            yield
    except (ConfigError, CheckpointError):
        raise
    except Exception as error:  # whatever a library raises over files of somebody else
        # behind the reason diffusers says how to go on with random weights
        detail = " ".join(str(error).split()).partition(" If you want to instead")[0][:300]
        package = _missing_package(error)
        if package is not None:
            raise ConfigError(
                f"A component of {place} needs {package}, which is not installed ({detail}). Install the {package} "
                "that fits your PyTorch, or use a copy of the model without that component."
            ) from error
        fits = "a file may be cut short" if "expected shape" not in detail else "they do not belong to its config.json"
        raise CheckpointError(
            f"The weights of {place} cannot be read ({detail}). Get the model again; {fits}."
        ) from error


def _missing_package(error: Exception) -> str | None:
    """The package that the libraries ask for, in the words of any of them, or None for another complaint."""
    asked = re.search(r"requires (?:the )?[`']?([A-Za-z][\w-]*)[`']?(?: library|(?: to be)? installed)", str(error))
    if asked is not None:
        return asked.group(1).lower()
    return (error.name or "a package") if isinstance(error, ImportError) else None


@contextmanager
def quiet_loading(model: str) -> Iterator[None]:
    """Hide the libraries' progress bars while local files are read; a download keeps its own."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging) if os.path.isdir(locate(model)) else ()
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


def _component_config(source: str, name: str, class_name: str, revision: str | None) -> Mapping[str, Any] | None:
    if "Tokenizer" in class_name or "Process" in class_name or "Extractor" in class_name:
        return None
    file = "scheduler_config.json" if name == "scheduler" else "config.json"
    path = find_file(source, f"{name}/{file}", revision=revision)
    return _read_config(path) if path else None


def _read_config(path: Path) -> dict[str, Any]:
    return load_json(path, dict[str, Any], cure=CURE, max_bytes=_MAX_CONFIG_BYTES)
