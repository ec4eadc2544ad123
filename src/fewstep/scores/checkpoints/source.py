"""One place that a metric reads files from: on this disk, in the download cache, or on the hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fewstep.errors import ConfigError
from fewstep.hub import hub_errors


@dataclass(frozen=True)
class Source:
    """One place that a metric reads from.

    Attributes:
        metric: The metric's name, for messages and commands.
        name: Repository id, local folder, or local file.
        revision: Branch, tag or commit of a repository.
        allow_pickle: Whether a pickle may be read, through ``weights_only``.
        setting: The metric's setting that says the name, for messages.
    """

    metric: str
    name: str
    revision: str | None = None
    allow_pickle: bool = False
    setting: str = "source"

    @property
    def option(self) -> str:
        """What to type to read from another place."""
        return f"--set {self.metric}.{self.setting}=FOLDER"

    @property
    def local(self) -> Path | None:
        """The folder or file that the name means on this disk, or None for a repository id."""
        path = Path(self.name).expanduser()
        if path.exists():
            return path
        if self.name.startswith((".", "/", "~")) or self.name.count("/") != 1:
            raise ConfigError(
                f"{self.metric} reads its {'checkpoint' if self.setting == 'source' else self.setting} from "
                f"{self.name}, which does not exist. Give a Hugging Face repository id or a local place: {self.option}."
            )
        return None


def beside(weights: Source, files: Sequence[str], otherwise: Source) -> Source:
    """Where ``files`` are: beside the weights if all are there, as in a converted folder, or the other place."""
    own = otherwise.name == weights.name or all(has_file(weights, file) for file in files)
    return weights if own else otherwise


def fetch_file(source: Source, name: str) -> Path:
    """One file of a source, downloaded when it is neither local nor in the cache.

    Raises:
        ConfigError: It is not there and cannot be fetched.
    """
    found = find_file(source, name)
    if found is not None:
        return found
    if source.local is not None or _offline() or not _asked_of_the_hub(source, name):
        raise ConfigError(missing_files(source, [name]))
    from huggingface_hub import hf_hub_download

    with hub_errors(source.name, source.revision):
        return Path(hf_hub_download(source.name, name, revision=source.revision))


def has_file(source: Source, name: str) -> bool:
    """Whether a local folder or the download cache has a file."""
    return find_file(source, name) is not None


def find_file(source: Source, name: str) -> Path | None:
    """The path of a file that is local or in the download cache, or None."""
    local = source.local
    if local is not None:
        if local.is_file():
            return local if local.name == name else None
        return local / name if (local / name).is_file() else None
    from huggingface_hub import constants, try_to_load_from_cache

    with hub_errors(source.name, source.revision):
        cached = try_to_load_from_cache(
            source.name, name, cache_dir=constants.HF_HUB_CACHE, revision=source.revision or "main"
        )
    return Path(cached) if isinstance(cached, str) else None


def is_present(source: Source, name: str) -> bool:
    """Whether a file is here, or, where the hub may be asked, there."""
    if find_file(source, name) is not None:
        return True
    return source.local is None and not _offline() and _asked_of_the_hub(source, name)


def _asked_of_the_hub(source: Source, name: str) -> bool:
    """Whether the repository has a file; nothing is downloaded.

    Raises:
        ConfigError: The hub cannot be reached, or there is no such repository, or it is gated.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with hub_errors(source.name, source.revision):
        try:
            hf_hub_download(source.name, name, revision=source.revision, dry_run=True)
        except LocalEntryNotFoundError as error:
            raise ConfigError(_not_downloaded(source, [name], "the hub cannot be reached")) from error
        except EntryNotFoundError:
            return False
    return True


def missing_files(source: Source, wanted: Sequence[str]) -> str:
    """The sentence for files that a source does not have, with what to do."""
    if source.local is not None or not _offline():
        place = source.name if source.local is not None else f"the repository {source.name}"
        return (
            f"{source.metric} needs {', '.join(wanted)}, which {place} does not have. "
            f"Give another place with {source.option}."
        )
    return _not_downloaded(source, wanted, "HF_HUB_OFFLINE is set")


def _not_downloaded(source: Source, wanted: Sequence[str], reason: str) -> str:
    names = " ".join(name.partition(" ")[0] for name in wanted)
    revision = f" --revision {source.revision}" if source.revision else ""
    return (
        f"{source.metric} needs {', '.join(wanted)} of {source.name}, which is not in the download cache, and "
        f"{reason}: with a network run `HF_HUB_OFFLINE=0 hf download {source.name} {names}{revision}`, or give a local "
        f"copy with {source.option}."
    )


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
