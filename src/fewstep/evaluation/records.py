"""What the score phase keeps per picture: findings as lines of JSON, features as safetensors; resumable at any batch.

Every process writes files of its own and reads those of all. A record is used only while its picture has the size in
bytes that it had when it was scored.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import CheckpointError
from fewstep.evaluation.metrics.protocol import Finding, Picture
from fewstep.files import explain_write_errors


def key_of(picture: Picture) -> str:
    """A picture's name among those of its model."""
    return picture.path.name


@dataclass(frozen=True)
class FindingStore:
    """Findings of one metric about one model's pictures."""

    folder: Path

    def read(self, pictures: Sequence[Picture]) -> dict[str, Finding]:
        """By picture, for those that have one. A half-written last line is left out."""
        sizes = _sizes(pictures)
        found = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in _whole_lines(path):
                row = _parsed(line, path)
                if sizes.get(row["picture"]) == row["bytes"]:
                    found[row["picture"]] = Finding(float(row["score"]), row["details"])
        return found

    def add(self, pictures: Sequence[Picture], findings: Sequence[Finding], *, part: str) -> None:
        """Append what was found, on disk before this returns."""
        rows = [
            {
                "picture": key_of(picture),
                "prompt": picture.item.id,
                "seed": picture.seed,
                "bytes": picture.path.stat().st_size,
                "score": finding.score,
                "details": dict(finding.details),
            }
            for picture, finding in zip(pictures, findings, strict=True)
        ]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with explain_write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{part}.jsonl"
            _cut_half_line(path)
            with path.open("a", encoding="utf-8") as file:
                file.write(text)


@dataclass(frozen=True)
class FeatureStore:
    """Features of one model's pictures, one file per batch."""

    folder: Path

    def read(self, pictures: Sequence[Picture]) -> dict[str, Tensor]:
        """By picture, for those that have some."""
        from safetensors import SafetensorError, safe_open

        sizes = _sizes(pictures)
        found = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                with safe_open(path, framework="pt") as file:
                    names, features = json.loads(file.metadata()["pictures"]), file.get_tensor("features")
            except (SafetensorError, KeyError, TypeError, ValueError) as error:
                raise CheckpointError(f"{path} is damaged ({error}); delete it, and it is made again.") from error
            for (name, size), row in zip(names, features, strict=True):
                if sizes.get(name) == size:
                    found[name] = row
        return found

    def add(self, pictures: Sequence[Picture], features: Tensor) -> None:
        """Write one batch of features, whole or not at all."""
        from safetensors.torch import save_file

        names = [(key_of(picture), picture.path.stat().st_size) for picture in pictures]
        with explain_write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]
            target = self.folder / f"{digest}.safetensors"
            unfinished = target.with_suffix(".unfinished")
            save_file(
                {"features": features.to(torch.float32).contiguous()}, unfinished, {"pictures": json.dumps(names)}
            )
            unfinished.replace(target)


def _sizes(pictures: Sequence[Picture]) -> dict[str, int]:
    return {key_of(picture): picture.path.stat().st_size for picture in pictures}


def _whole_lines(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    yield from (line for line in text[: text.rfind("\n") + 1].split("\n") if line)


def _cut_half_line(path: Path) -> None:
    """Drop what a killed process left of its last line."""
    if path.is_file():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            path.write_bytes(content[:whole])


def _parsed(line: str, path: Path) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is damaged ({error.msg}); delete it, and its scores are made again.") from error
    return row
