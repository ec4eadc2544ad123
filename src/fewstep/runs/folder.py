"""The folder of one run: who may write it, and whose it is.

runs/RECIPE-1a2b3c4d/
    config.json       the settings, complete
    run.json          recipe, hash, versions, git revision; one entry per start in "sessions"
    metrics.jsonl     one line per logged step
    sheets/           sample sheets
    checkpoints/      step-XXXXXXXX/
    rewinds.json      each time that the run went back to a healthy checkpoint
    tensorboard/
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fewstep.config.identity import config_difference, config_hash, earlier_hashes
from fewstep.config.moved import moved
from fewstep.config.recipe import validate
from fewstep.config.run_config import RunConfig
from fewstep.errors import CheckpointError, ConfigError, shown
from fewstep.files import UnreadableError, explain_write_errors, read_json, unfinished_name, write_json
from fewstep.runs.places import CHECKPOINTS, CONFIG, LOCK, METRICS, RUN, SHEETS
from fewstep.runs.provenance import packages_of, provenance, require_packages
from fewstep.seals import BrokenSealError, Seal, require_no_links, seal

_T = TypeVar("_T")

_PATIENCE = 0.3  # seconds: `fewstep runs` holds a lock for an instant to see whether a run does
# all that a start leaves which was killed before config.json was whole
_TRACES = (LOCK, unfinished_name(CONFIG))


class _Session(BaseModel):
    """One start of a run: when, and which code."""

    model_config = ConfigDict(extra="allow")

    fewstep: str
    git: dict[str, Any] | None = None


class _RunFacts(BaseModel):
    """``run.json``."""

    model_config = ConfigDict(extra="allow")

    recipe: str
    config_hash: str
    sessions: list[_Session] = Field(min_length=1)
    files: dict[str, Seal] = Field(default_factory=dict, description="beside the checkpoint, by the setting's name")


@dataclass(frozen=True)
class RunFolder:
    """A run on disk. Used as a context manager while it is written; :meth:`open` reads one that is done.

    Attributes:
        path: The folder.
        config: The settings of its run.
    """

    path: Path
    config: RunConfig
    _lock: FileLock | None = field(default=None, repr=False, compare=False)
    _fresh: bool = field(default=False, repr=False, compare=False)

    @classmethod
    def create(
        cls,
        root: str | Path,
        recipe_name: str,
        config: RunConfig,
        *,
        resume: bool = False,
        path: str | Path | None = None,
        files: Mapping[str, Path] | None = None,
    ) -> Self:
        """Make or take over the folder of a run, and lock it until :meth:`close`.

        Args:
            root: Folder that holds the runs; the run is ``root/RECIPE-HASH``.
            recipe_name: First part of the folder's name.
            config: The settings.
            resume: Go on in an existing folder; starts when there is none.
            path: The folder itself, instead of ``root`` and the name.
            files: What the settings name besides folders, by setting: a run goes on with what it began with.

        Raises:
            ConfigError: The folder exists and ``resume`` is off, belongs to other settings or files, is being written
                by another process, or cannot be written.
        """
        folder = run_place(root, recipe_name, config) if path is None else Path(path)
        _require_own(folder, config, resume=resume)
        with explain_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        lock = _acquire(folder)
        fresh = False
        try:
            # once more, now that nobody else can start a run here
            fresh = not _require_own(folder, config, resume=resume)
            write_json(folder / CONFIG, config.model_dump(mode="json"))
            write_json(folder / RUN, _run_facts(folder, recipe_name, config, files or {}))
        except BaseException:
            if fresh:  # half a run would be in the way of the next attempt
                shutil.rmtree(folder, ignore_errors=True)
            lock.release()
            raise
        return cls(folder, config, lock, fresh)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Read a run's settings, without locking it.

        Raises:
            ConfigError: There is no run in this folder.
            CheckpointError: Its settings cannot be read.
        """
        folder = Path(path)
        if not (folder / CONFIG).is_file():
            state = "holds no run (it has no config.json)" if folder.is_dir() else "is not a folder"
            raise ConfigError(f"{folder} {state}; name a run's folder, such as runs/digits-1a2b3c4d.")
        return cls(folder, read_config(folder))

    def require_same_files(self, files: Mapping[str, Path]) -> None:
        """Raise ConfigError when a file is not the one that the run began with."""
        _require_same(self.path, _facts(self.path)["files"], _seals(files), files)

    @property
    def metrics(self) -> Path:
        return self.path / METRICS

    @property
    def sheets(self) -> Path:
        return self.path / SHEETS

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def facts(self) -> dict[str, Any]:
        """What run.json says: recipe, hash, versions, git revision, sessions."""
        return _facts(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # a run that failed before it had anything to keep leaves no folder that the next attempt stumbles over
        if error is not None and self._fresh and not self._has_results():
            shutil.rmtree(self.path, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Let other processes write the folder."""
        if self._lock is not None:
            self._lock.release()

    def _has_results(self) -> bool:
        written = self.metrics.is_file() and self.metrics.stat().st_size > 0
        return written or any(self.checkpoints.glob("step-*"))


def run_place(root: str | Path, recipe_name: str, config: RunConfig) -> Path:
    """The folder under ``root`` of a run, whether it is there or not; one that is there keeps the name that it has."""
    named = [Path(root, f"{recipe_name}-{digits}") for digits in earlier_hashes(config)]
    with explain_write_errors(Path(root)):
        there = next((folder for folder in named if (folder / CONFIG).is_file()), None)
    return there or Path(root, f"{recipe_name}-{config_hash(config)}")


def read_config(folder: Path) -> RunConfig:
    """The settings in a run's config.json.

    Raises:
        CheckpointError: They are damaged, or another version of fewstep wrote them.
        ConfigError: They need a package that is not installed.
    """
    settings = moved(_read(folder / CONFIG, dict[str, Any]))
    require_packages(settings, _packages(folder), place=str(folder / CONFIG))
    try:
        return validate(settings)
    except ValueError as error:  # of pydantic, or a number with more digits than Python writes
        first = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else {"msg": str(error)}
        place = shown(".".join(map(str, first.get("loc", ()))) or "the whole", quoted=False)
        raise CheckpointError(
            f"{folder / CONFIG} holds settings that fewstep does not know ({place}: {first['msg']}). "
            "It was edited, or written by another version; use that version, or start a new run."
        ) from error


def _packages(folder: Path) -> dict[str, Any]:
    """What the run's last start says of packages; nothing where that cannot be read."""
    try:
        found = _facts(folder)["sessions"][-1].get("plugins")
    except CheckpointError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_occupied(folder: Path) -> bool:
    with explain_write_errors(folder):
        return folder.exists() and (not folder.is_dir() or any(entry.name not in _TRACES for entry in folder.iterdir()))


def _require_own(folder: Path, config: RunConfig, *, resume: bool) -> bool:
    """Refuse a folder that this run must not write into; say whether there is a run to go on with."""
    if not _is_occupied(folder):
        return False
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{folder} exists and is not the folder of a run; choose another place for the run.")
    if not resume:
        raise ConfigError(
            f"The run {folder} exists already; go on with it with --resume, delete it, or change a setting, "
            "which gives the run another name."
        )
    difference = config_difference(read_config(folder), config)
    if difference:
        raise ConfigError(
            f"{folder} belongs to a run with other settings, so it cannot be resumed with these: "
            f"{'; '.join(difference)}. Resume it with its own, or start a new run."
        )
    try:
        require_no_links(folder)
    except BrokenSealError as error:
        raise CheckpointError(
            f"{error.path} {error}; a run is written in its own folder only. Put a file or a folder there, or give the "
            "whole run another place with --output."
        ) from error
    _require_kinds(folder)
    return True


def _require_kinds(folder: Path) -> None:
    """Refuse what stands where a run writes and is of another kind: it would be noticed when the run's work is done."""
    for name, kind, is_one in (
        (CHECKPOINTS, "folder", Path.is_dir),
        (SHEETS, "folder", Path.is_dir),
        (METRICS, "file", Path.is_file),
    ):
        place = folder / name
        if place.exists() and not is_one(place):
            raise CheckpointError(
                f"{place} is no {kind}, which a run writes there; move it away, or put the run's own {kind} back."
            )


def _acquire(folder: Path) -> FileLock:
    lock = FileLock(folder / LOCK)
    try:
        with explain_write_errors(folder / LOCK):
            lock.acquire(timeout=_PATIENCE)
    except Timeout as error:
        raise ConfigError(
            f"Another process is writing the run {folder}; wait for it or stop it, then use --resume."
        ) from error
    return lock


def _run_facts(folder: Path, recipe_name: str, config: RunConfig, files: Mapping[str, Path]) -> dict[str, Any]:
    session = {"started": datetime.now(UTC).isoformat(timespec="seconds"), **provenance()}
    packages = packages_of(config.model_dump(mode="json"))
    session |= {"plugins": packages} if packages else {}
    earlier = _facts(folder) if (folder / RUN).exists() else {"sessions": [], "files": {}}
    found = _seals(files)
    _require_same(folder, earlier["files"], found, files)
    digits = earlier.get("config_hash", config_hash(config))
    facts = {"recipe": recipe_name, "config_hash": digits, "sessions": [*earlier["sessions"], session]}
    return {**facts, "files": found} if found else facts


def _seals(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    try:
        return {name: seal(path.resolve()).model_dump(mode="json") for name, path in files.items()}
    except BrokenSealError as error:
        raise ConfigError(f"{error.path} {error}; check the path.") from error


def _require_same(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any], files: Mapping[str, Path]) -> None:
    for name in old.keys() & new.keys():
        if old[name] != new[name]:
            raise ConfigError(
                f"{name} is {files[name]}, whose content has changed since the run {folder} began, so that it "
                "would be another run. Put the original file back, or start a new run."
            )


def _facts(folder: Path) -> dict[str, Any]:
    return _read(folder / RUN, _RunFacts).model_dump(mode="json")


def _read(path: Path, shape: type[_T]) -> _T:
    try:
        return read_json(path, shape)
    except UnreadableError as error:
        raise CheckpointError(f"{path} is damaged ({error}); the run it belongs to cannot be opened.") from error
