"""Pictures that somebody else drew: which file belongs to which prompt, and their place in an evaluation's folder."""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from fewstep.errors import ConfigError, shown
from fewstep.evaluation.folder import EvaluationFolder, ModelRecord, Task
from fewstep.evaluation.models import ModelEntry, Sampling, short_name
from fewstep.evaluation.ranks import Ranks
from fewstep.files import UnreadableError, explain_write_errors
from fewstep.prompts.tables import PROMPT_NAMES, open_table
from fewstep.sampling.model_spec import parse_spec
from fewstep.scores.metric import PromptItem
from fewstep.scores.pictures import SUFFIXES, by_number, pictures_in, read_picture
from fewstep.seals import seal

_OPTION = "--pictures"
_FILE_COLUMNS = ("file_name", "picture", "image", "path", "file")
_NUMBER_AT_END = re.compile(r"^(.+?)[_\-. /]+(?:seed|sample|image|img)?[_\-]?\d+$")
_Matched = Mapping[str, Sequence[Path]]
"""By a prompt's id, its pictures in order."""


@dataclass(frozen=True)
class GivenPictures:
    """One folder of pictures, each known by its prompt and seed.

    Attributes:
        files: By prompt id and seed.
    """

    entry: ModelEntry
    files: Mapping[tuple[str, int], Path]


def open_pictures(text: str, items: Sequence[PromptItem], task: Task) -> GivenPictures:
    """Find a picture for every prompt and seed of the task, and look at each.

    Files belong to prompts by name (a prompt's id or text, with a number behind it where there are several), else by
    number (the order of the prompts, counted from 0 or 1, all pictures of one prompt together), or as a .jsonl file
    says, whose rows have a picture's path beside the prompt or its id.

    Args:
        text: ``FOLDER[,name=NAME]`` or ``FILE.jsonl[,name=NAME]``.
        items: All prompts of the set, also those beyond the task.

    Raises:
        ConfigError: There is no such folder, a picture fits no prompt, a prompt lacks pictures or has too many, a
            picture cannot be read, or the pictures are of several sizes.
    """
    spec = parse_spec(text, option=_OPTION)
    if further := sorted(spec.model_fields_set - {"model", "name"}):
        raise ConfigError(f"{_OPTION} {shown(text)} sets {further[0]}; of given pictures only the name can be set.")
    place = Path(spec.model).expanduser()
    matched = _as_listed(place, items) if place.is_file() else _as_named(place, items, per_prompt=len(task.seeds))
    files = _for_task(matched, task, place)
    width, height = _size_of(list(files.values()), place)
    digest = hashlib.sha256()
    for (item, seed), path in sorted(files.items()):
        digest.update(f"{item} {seed} {seal(path.resolve()).sha256}\n".encode())
    sampling = Sampling(
        sampler="given",
        steps=None,
        sigmas=None,
        guidance_scale=None,
        height=height,
        width=width,
        lora=None,
        lora_scale=1.0,
        dtype=None,
    )
    entry = ModelEntry(
        name=spec.name or short_name(str(place.with_suffix("")) if place.is_file() else spec.model),
        role="pictures",
        model=spec.model,
        fingerprint=f"sha256:{digest.hexdigest()[:32]}",
        sampling=sampling,
    )
    return GivenPictures(entry, files)


def take_in(
    folder: EvaluationFolder, task: Task, given: Sequence[GivenPictures], *, ranks: Ranks, console: Console
) -> None:
    """Put the pictures into the evaluation's folder under their names there: as a second name where the disk can.

    Raises:
        ConfigError: The folder holds pictures of something else, or cannot be written.
    """
    for one in given:
        folder.require_same(one.entry, {})
    if ranks.leads:
        folder.write_task(task)
        for one in given:
            console.print(f"{one.entry.name}: {len(one.files)} pictures", markup=False)
            folder.write_record(ModelRecord(entry=one.entry, versions={}))
            for item in task.prompts.items:
                for seed in task.seeds:
                    (target,) = folder.picture_paths(one.entry, item, seed, None)
                    _put(one.files[item.id, seed].resolve(), target)
            folder.write_record(ModelRecord(entry=one.entry, versions={}, complete=True))
    ranks.wait()


def _put(source: Path, target: Path) -> None:
    with explain_write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another disk, or one without second names
            shutil.copyfile(source, target)


def _as_listed(file: Path, items: Sequence[PromptItem]) -> _Matched:
    """As the rows of a file say; paths are relative to the file."""
    if file.suffix.lower() != ".jsonl":
        raise ConfigError(f"{_OPTION} is {file}; give a folder of pictures, or a .jsonl file that names them.")
    known = _keys(items)
    matched: dict[str, list[Path]] = {}
    table = open_table(file)
    for row in table.rows(table.names):
        picture = next((row.columns[name] for name in _FILE_COLUMNS if row.columns.get(name)), None)
        if not isinstance(picture, str):
            raise ConfigError(f"{row.place} names no picture; put its path into a column {_FILE_COLUMNS[0]}.")
        told = _told_prompt(row.columns)
        item = known.get(told) or known.get(_plain(told))
        if item is None:
            raise ConfigError(
                f"{row.place} is about {shown(told)}, which is no prompt of the set and no id of one; correct the row, "
                "or give the prompts that the pictures were drawn for: --prompts FILE."
            )
        matched.setdefault(item, []).append(file.parent / picture)
    return matched


def _told_prompt(columns: Mapping[str, Any]) -> str:
    return str(next((columns[name] for name in ("id", *PROMPT_NAMES) if columns.get(name) not in (None, "")), ""))


def _as_named(folder: Path, items: Sequence[PromptItem], *, per_prompt: int) -> _Matched:
    """As the names of the files say: by the prompts' ids or texts, else by numbers."""
    files = pictures_in(folder) if folder.is_dir() else []
    if not files:
        kinds = ", ".join(SUFFIXES)
        raise ConfigError(f"{_OPTION} is {folder}, which is no folder with pictures ({kinds}); give one that is.")
    files.sort(key=lambda path: [by_number(Path(part)) for part in path.relative_to(folder).parts])
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in files]
    known = _keys(items)
    found = [_item_of(name, known) for name in names]
    if None in found:
        numbered = _numbered(names, items, per_prompt)
        if numbered is None:
            stranger = files[found.index(None)].relative_to(folder)
            raise ConfigError(
                f"{found.count(None)} of {len(files)} pictures in {folder} fit no prompt, the first is "
                f"{shown(str(stranger))}; call them after the prompts' ids or texts (such as {items[0].id}.png, or "
                f"{items[0].id}_0.png for one of several), number them in the order of the {len(items)} prompts, or "
                f"name them in a .jsonl file: {_OPTION} FILE.jsonl."
            )
        found = list(numbered)
    matched: dict[str, list[Path]] = {}
    for item, path in zip(found, files, strict=True):
        matched.setdefault(str(item), []).append(path)
    return matched


def _keys(items: Sequence[PromptItem]) -> dict[str, str]:
    """The ids of the prompts by what a file may be called after; an id comes before a text."""
    keys = {_plain(item.text): item.id for item in items} | {item.text: item.id for item in items}
    return keys | {item.id: item.id for item in items}


def _plain(text: str) -> str:
    """A text as tools write it into a file's name: what is no letter and no digit does not count."""
    return re.sub(r"[\W_]+", " ", text).strip().casefold()


def _item_of(name: str, known: Mapping[str, str]) -> str | None:
    """The prompt that a file's name, or that of its folder, is about."""
    last = name.rpartition("/")[2]
    candidates = [name, last]
    candidates += [match[1] for one in (last, name) if (match := _NUMBER_AT_END.match(one)) is not None]
    candidates += [name.partition("/")[0]] if "/" in name else []
    return next((known[key] for one in candidates for key in (one, _plain(one)) if key in known), None)


def _numbered(names: Sequence[str], items: Sequence[PromptItem], per_prompt: int) -> list[str] | None:
    """The prompt of each picture by the numbers in its name: of the picture, or of the prompt and the picture.

    None where the names differ in more than one or two numbers, or a number goes beyond the prompts.
    """
    parts = [re.split(r"(\d+)", name) for name in names]
    if len({tuple(part[::2]) for part in parts}) != 1 or len(parts[0]) < 3:
        return None
    columns = list(zip(*([int(number) for number in part[1::2]] for part in parts), strict=True))
    telling = [column for column in columns if len(set(column)) > 1] or columns[-1:]
    if len(telling) > 2:
        return None
    base = min(telling[0])
    size = per_prompt if len(telling) == 1 else 1
    positions = [(number - base) // size for number in telling[0]]
    return [items[position].id for position in positions] if base < 2 and max(positions) < len(items) else None


def _for_task(matched: _Matched, task: Task, place: Path) -> dict[tuple[str, int], Path]:
    """A file for every prompt and seed."""
    items, count = task.prompts.items, len(task.seeds)
    absent = [item for item in items if not matched.get(item.id)]
    if absent:
        raise ConfigError(
            f"{len(absent)} of {len(items)} prompts have no picture in {place}, the first is {absent[0].id} "
            f"({shown(absent[0].text, 80)}); add theirs, or give the prompts that were drawn: --prompts FILE or "
            "--num-prompts N."
        )
    other = next((item for item in items if len(matched[item.id]) != count), None)
    if other is not None:
        found = len(matched[other.id])
        raise ConfigError(
            f"The prompt {other.id} ({shown(other.text, 80)}) has {found} pictures in {place}, and {count} of each are "
            f"asked for; give --seeds {found}, or as many pictures of every prompt."
        )
    return {(item.id, seed): path for item in items for seed, path in zip(task.seeds, matched[item.id], strict=True)}


def _size_of(files: Sequence[Path], place: Path) -> tuple[int, int]:
    """Width and height that all pictures have; each is read once, so that nothing is scored beside a broken one."""
    first: tuple[int, int] | None = None
    for path in files:
        try:
            size = read_picture(path).size
        except UnreadableError as error:
            raise ConfigError(f"The picture {path} cannot be used: {error}. Draw or fetch it again.") from error
        first = first or size
        if size != first:
            raise ConfigError(
                f"{path} has {size[0]} x {size[1]} pixels and {files[0]} {first[0]} x {first[1]}; scores of one row "
                f"are of one size, so bring the pictures in {place} to one."
            )
    assert first is not None
    return first
