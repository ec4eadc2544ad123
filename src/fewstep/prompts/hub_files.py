"""Files of a dataset repository on the hub, fetched into its download cache: how named prompt sets arrive."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fewstep.errors import ConfigError, shown

_T = TypeVar("_T")


@dataclass(frozen=True)
class HubFiles:
    """Plain files of a dataset repository.

    Attributes:
        dataset: Its id.
        files: Their names in it.
        revision: A commit, so that the content is always the same; None is the newest.
    """

    dataset: str
    files: tuple[str, ...]
    revision: str | None = None

    def fetch(self) -> list[Path]:
        """The files in the download cache, which are fetched where they are not there; raises what the hub raises."""
        from huggingface_hub import hf_hub_download

        return [
            Path(hf_hub_download(self.dataset, file, repo_type="dataset", revision=self.revision))
            for file in self.files
        ]


def fetched(name: str, fetch: Callable[[], _T], *, instead: str) -> _T:
    """What ``fetch`` returns.

    Args:
        name: Of the prompt set.
        fetch: Asks the hub.
        instead: What to do when it has no answer, as the end of a sentence.

    Raises:
        ConfigError: It raised whatever.
    """
    try:
        return fetch()
    except Exception as error:
        # the hub's two libraries raise many unrelated types for no network, a moved and a gated repository
        raise ConfigError(f"The prompt set {name} cannot be fetched ({_reason(error)}); {instead}.") from error


def _reason(error: Exception) -> str:
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError):
        return "it is not in the download cache, and the hub cannot be reached"
    return shown(" ".join(str(error).split()), 200, quoted=False)
