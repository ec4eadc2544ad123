"""What identifies a checkpoint's text encoders: two that are equal here give equal embeddings."""

import hashlib
from pathlib import Path
from typing import Any

from fewstep.backbones.protocol import BackboneConfig, ModelAdapter
from fewstep.backbones.source import MODEL_INDEX, find_file, locate
from fewstep.errors import ConfigError

# of the settings every backbone has, none changes what a prompt means; those of a family may (token counts, rewriting)
_COMMON_SETTINGS = frozenset(BackboneConfig.model_fields)
_PREFIXES = ("text_encoder", "tokenizer")


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
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "blake2b").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}={content}\n".encode())
    return digest.hexdigest()
