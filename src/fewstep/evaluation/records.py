"""What the score phase keeps per picture: findings as lines of JSON, features as safetensors; resumable at any batch.

Every process writes files of its own and reads those of all. A record is used only while its picture has the content
that it had when it was scored; records of earlier versions, which noted its size only, are made again.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from fewstep.errors import CheckpointError
from fewstep.files import (
    MAX_LINE_BYTES,
    UnreadableError,
    explain_write_errors,
    parse_json,
    whole_file,
    whole_lines,
)
from fewstep.scores.metric import Finding, Picture
from fewstep.scores.pictures import MAX_FILE_BYTES
from fewstep.seals import BrokenSealError, seal
from fewstep.tensors import opened_tensors


def key_of(picture: Picture) -> str:
    """A picture's name among those of its model."""
    return picture.path.name


class _Row(BaseModel):
    """What a line has to say."""

    picture: str
    sha256: str | None = None
    score: float = Field(allow_inf_nan=False)
    details: dict[str, Any]


@dataclass(frozen=True)
class FindingStore:
    """Findings about one model's pictures: scores in a file that each process appends to, features in one per batch."""

    folder: Path

    def read(self, pictures: Sequence[Picture]) -> dict[str, Finding]:
        """By picture, for those that have one."""
        hashes = {key_of(picture): _hash(picture) for picture in pictures}
        return self._read_scores(hashes) | self._read_features(hashes)

    def add(self, pictures: Sequence[Picture], findings: Sequence[Finding], *, part: str) -> None:
        """Keep what was found, on disk before this returns."""
        rows = [finding.features for finding in findings if finding.features is not None]
        with explain_write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if rows:
                self._add_features(pictures, torch.stack(rows))
            else:
                self._add_scores(pictures, findings, part)

    def _read_scores(self, hashes: Mapping[str, str]) -> dict[str, Finding]:
        """A half-written last line is left out."""
        found = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for row in _rows(path):
                if row.sha256 is not None and hashes.get(row.picture) == row.sha256:
                    found[row.picture] = Finding(row.score, row.details)
        return found

    def _add_scores(self, pictures: Sequence[Picture], findings: Sequence[Finding], part: str) -> None:
        rows = [
            {
                "picture": key_of(picture),
                "prompt": picture.item.id,
                "seed": picture.seed,
                "sha256": _hash(picture),
                "score": finding.score,
                "details": dict(finding.details),
            }
            for picture, finding in zip(pictures, findings, strict=True)
        ]
        path = self.folder / f"{part}.jsonl"
        _cut_half_line(path)
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def _read_features(self, hashes: Mapping[str, str]) -> dict[str, Finding]:
        found: dict[str, Finding] = {}
        width: int | None = None
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                with opened_tensors(path) as file:
                    stated, features = file.metadata()["pictures"], file.get_tensor("features")
                names = parse_json(stated, list[tuple[str, str | int]])
                if features.ndim != 2 or len(names) != len(features) or width not in (None, features.shape[1]):
                    raise UnreadableError(f"it holds features of shape {tuple(features.shape)}")
            except (KeyError, TypeError, UnreadableError) as error:
                raise CheckpointError(f"{path} is damaged ({error}); delete it, and it is made again.") from error
            width = features.shape[1]
            rows = zip(names, features, strict=True)
            found |= {name: Finding(features=row) for (name, known), row in rows if hashes.get(name) == known}
        return found

    def _add_features(self, pictures: Sequence[Picture], features: Tensor) -> None:
        """Write one batch, whole or not at all."""
        from safetensors.torch import save_file

        names = [(key_of(picture), _hash(picture)) for picture in pictures]
        target = self.folder / f"{hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]}.safetensors"
        stored, about = {"features": features.to(torch.float32).contiguous()}, {"pictures": json.dumps(names)}
        with whole_file(target, shared=True) as unfinished:
            save_file(stored, unfinished, about)


def _hash(picture: Picture) -> str:
    """The SHA-256 of a picture's file; read again only when somebody touched it.

    That of a clip's later frame is also of the one before, with which metrics compare it.

    Raises:
        CheckpointError: There is no file, or something else in its place.
    """
    try:
        paths = (*picture.clip[max(picture.frame - 1, 0) : picture.frame], picture.path)
        found = [seal(path, max_bytes=MAX_FILE_BYTES).sha256 for path in paths]
    except BrokenSealError as error:
        raise CheckpointError(
            f"The picture {error.path} {error}; put the picture itself there, or delete what is there to have it drawn "
            "again."
        ) from error
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def _cut_half_line(path: Path) -> None:
    """Drop what a killed process left of its last line."""
    if path.is_file():
        with path.open("r+b") as file:
            start = max(0, path.stat().st_size - MAX_LINE_BYTES)
            file.seek(start)
            file.truncate(start + file.read().rfind(b"\n") + 1)


def _rows(path: Path) -> Iterator[_Row]:
    try:
        for _, line in whole_lines(path):
            yield parse_json(line, _Row)
    except UnreadableError as error:
        raise CheckpointError(f"{path} is damaged ({error}); delete it, and its scores are made again.") from error
