"""What the Hugging Face hub answers, in one sentence that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from fewstep.errors import ConfigError, shown


@contextmanager
def hub_errors(source: str, revision: str | None) -> Iterator[None]:
    """Turn what huggingface_hub raises into one sentence that says what to do."""
    from huggingface_hub import errors

    source = shown(source, 300, quoted=False)
    page = f"https://huggingface.co/{source}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise ConfigError(
            f"{source} is gated: accept its licence at {page} and set HF_TOKEN (or run `hf auth login`)."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ConfigError(f"{source} has no revision {revision!r}; see {page}/commits for those it has.") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ConfigError(
            f"{source} is neither a local folder nor a Hugging Face repository that you may read. "
            "Check the spelling; for a private repository set HF_TOKEN."
        ) from error
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, ConnectionError) as error:
        if _status(error) in (401, 403):
            raise ConfigError(
                f"The Hugging Face hub refuses your token for {source} (HTTP {_status(error)}): set HF_TOKEN to a "
                f"valid token of an account that may read it (or run `hf auth login`); {page} says who may."
            ) from error
        raise _unreachable(source) from error
    except Exception as error:
        if not _is_of_the_connection(error):
            raise
        raise _unreachable(source) from error


def _unreachable(source: str) -> ConfigError:
    return ConfigError(
        f"{source} is not a local folder, not in the download cache, and the Hugging Face hub cannot be reached. "
        "Check the spelling of a local path, go online (unset HF_HUB_OFFLINE), or download the model first."
    )


def _is_of_the_connection(error: Exception) -> bool:
    """Whether it is of the library below huggingface_hub, which differs from version to version, or no hub answered."""
    from huggingface_hub.errors import FileMetadataError

    kinds = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return isinstance(error, FileMetadataError) or any(kind.startswith(("httpx", "requests")) for kind in kinds)


def _status(error: Exception) -> int | None:
    """The hub's answer, where it gave one."""
    return getattr(getattr(error, "response", None), "status_code", None)
