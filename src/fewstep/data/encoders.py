"""What identifies a checkpoint's text encoders: two that are equal here give equal embeddings."""

import hashlib
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fewstep.backbones.protocol import BackboneConfig, ModelAdapter
from fewstep.backbones.source import MODEL_INDEX, find_file, locate
from fewstep.errors import CheckpointError, ConfigError

# of the settings every backbone has, none changes what a prompt means; those of a family may (token counts, rewriting)
_COMMON_SETTINGS = frozenset(BackboneConfig.model_fields)
_PREFIXES = ("text_encoder", "tokenizer", "processor")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_MAX_FILE_BYTES = 2**28
"""Of a file beside the weights."""


def encoder_identity(adapter: ModelAdapter) -> dict[str, Any]:
    """The backbone, its own settings, and the content of the encoders' files or the commit they come from."""
    return {
        "kind": adapter.kind,
        "settings": adapter.config.model_dump(mode="json", exclude={*_COMMON_SETTINGS, *adapter.config.not_about_text}),
        "files": _content(adapter.config.origin, adapter.config.revision),
        **adapter.text_identity(),
    }


def _content(model: str, revision: str | None) -> str:
    source = locate(model)
    if Path(source).is_dir():
        return _hash_files(Path(source))
    index = find_file(source, MODEL_INDEX, revision=revision)
    if index is None:
        raise ConfigError(f"{model} has no {MODEL_INDEX}, so it is not a diffusers pipeline; name another model.")
    # the hub's cache keeps each commit in a folder of its name, so a moved branch is another identity
    return f"{model}@{index.parent.name}"


def _hash_files(folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    files = (path for prefix in _PREFIXES for path in folder.glob(f"{prefix}*/**/*") if path.is_file())
    for path in sorted(files):
        if path.suffix == ".safetensors":
            _require_header(path)
        elif path.suffix not in _WEIGHTS and path.stat().st_size > _MAX_FILE_BYTES:
            raise CheckpointError(
                f"{path} has {path.stat().st_size} bytes, more than any file of a tokenizer; get the model again."
            )
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "blake2b").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}={content}\n".encode())
    return digest.hexdigest()


def _require_header(path: Path) -> None:
    """Refuse weights that are not what their header says before all of them are hashed, which takes minutes."""
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be used: {error}. Get the model again; it may be cut short.") from error
