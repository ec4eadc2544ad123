"""Upload what was written to the Hugging Face hub, or say what would go."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.errors import ConfigError, shown

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


@dataclass(frozen=True)
class Upload:
    """The files of an export and the repository that they go to, or would."""

    repository: str
    files: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, folder: Path, repository: str) -> "Upload":
        """What is in a folder: names and bytes."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return cls(repository, tuple((path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths))

    def __str__(self) -> str:
        lines = [f"{size:>15,} bytes  {name}" for name, size in self.files]
        whole = sum(size for _, size in self.files)
        return "\n".join([*lines, f"{whole:>15,} bytes  https://huggingface.co/{self.repository}"])


def require_repository(name: str) -> None:
    """Raise ConfigError for what is no name of a repository, before anything is written."""
    if _REPOSITORY.fullmatch(name) is None or ".." in name or "--" in name:
        raise ConfigError(f"{shown(name)} is no repository of the hub; give USER/NAME, such as anna/sd3-cdm.")


def upload(folder: Path, repository: str, *, api: Any = None) -> Upload:
    """Upload an exported folder; the repository is made when it is not there.

    Args:
        api: Of huggingface_hub; None makes one, with the token of this machine.

    Raises:
        ConfigError: The hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi() if api is None else api
    try:
        api.create_repo(repository, repo_type="model", exist_ok=True)
        api.upload_folder(folder_path=str(folder), repo_id=repository, commit_message="Exported with fewstep")
    except (HfHubHTTPError, ConnectionError, LocalTokenNotFoundError) as error:
        raise ConfigError(
            f"The export is in {folder}, but {repository} did not take it ({shown(str(error), 200, quoted=False)}). "
            "Give HF_TOKEN a token that may write there (or run `hf auth login`), then: "
            f"hf upload {repository} {folder}"
        ) from error
    return Upload.of(folder, repository)
