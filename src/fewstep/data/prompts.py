"""Prompts of a run: from where its recipe says they are, and in which order they are used."""

import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import assert_never

import numpy as np

from fewstep.config.prompt_sources import DemoPrompts, HubPrompts, NamedPrompts, PromptFile, PromptSource
from fewstep.embedded.tasks import TASKS
from fewstep.errors import ConfigError, shown
from fewstep.prompts.hub_files import fetched
from fewstep.prompts.tables import files_of, open_table
from fewstep.prompts.text import require_prompt
from fewstep.prompts.training_sets import TRAINING_SETS


def load_prompts(source: PromptSource, *, tell: Callable[[str], None] | None = None) -> tuple[str, ...]:
    """Read prompts without blank ones and repetitions, in the order in which they first appear.

    Args:
        source: Where they are.
        tell: Told, in a sentence, how many rows were left out, when there are any.

    Raises:
        ConfigError: There is no such file, column or dataset, it cannot be read or fetched, it holds no prompt, or a
            prompt is nothing that a tokenizer takes.
    """
    match source:
        case PromptFile():
            prompts, place = _from_file(source), source.path
        case DemoPrompts():
            prompts, place = iter(TASKS[source.task].training_prompts()), "the embedded prompts"
        case HubPrompts():
            prompts, place = _from_hub(source), f"the column {source.column} of {source.dataset}"
        case NamedPrompts():
            prompts, place = _from_set(source), f"the prompt set {source.name}"
        case _:
            assert_never(source)
    distinct: dict[str, None] = {}
    rows = blank = 0
    for text in prompts:
        rows += 1
        prompt = text.strip()
        if prompt:
            distinct[prompt] = None
        else:
            blank += 1
    if not distinct:
        raise ConfigError(f"There is no prompt in {place}; a run needs at least one that is not blank.")
    repeated = rows - blank - len(distinct)
    if tell is not None and blank + repeated:
        left = f"{blank} are blank and {repeated} repeat an earlier one"
        tell(f"Of {rows} rows of {place}, {left}; {len(distinct)} prompts stay.")
    return _limited(tuple(distinct), source) if isinstance(source, NamedPrompts) else tuple(distinct)


def _from_file(source: PromptFile) -> Iterator[str]:
    for path in files_of(Path(source.path)):
        if not path.exists():
            raise ConfigError(
                f"The prompt file {path} does not exist; check its path. `fewstep prompts` lists sets that a "
                "recipe can name instead."
            )
        table = open_table(path, source.column)
        if not table.names:
            continue
        column = table.prompt_column(source.column)
        for place, columns in table.rows([column]):
            if columns.get(column) is None:
                raise ConfigError(
                    f"{place} has no text in the column {shown(column)} (prompts.column); every row needs one. Its "
                    f"columns are {shown(', '.join(columns), 300, quoted=False)}."
                )
            yield require_prompt(columns[column], place=place)


def files_of_set(source: PromptSource) -> dict[str, Path]:
    """The files of a named set, by the setting that means them; none for prompts from elsewhere.

    Raises:
        ConfigError: They are not in the download cache and cannot be fetched.
    """
    if not isinstance(source, NamedPrompts):
        return {}
    hub = TRAINING_SETS[source.name].hub
    revision = f" --revision {hub.revision}" if hub.revision else ""
    command = f"hf download {hub.dataset} {' '.join(hub.files)} --repo-type dataset{revision}"
    instead = f"go online and try again or run: {command}; or give a file, prompts={{kind: file, path: FILE}}"
    paths = fetched(source.name, hub.fetch, instead=instead)
    return {f"prompts.name ({file})": path for file, path in zip(hub.files, paths, strict=True)}


def _from_set(source: NamedPrompts) -> Iterator[str]:
    column = TRAINING_SETS[source.name].column
    for path in files_of_set(source).values():
        for place, columns in open_table(path, column).rows([column]):
            # a missing value counts as a blank row: nobody can write into a dataset of others
            yield "" if columns.get(column) is None else require_prompt(columns[column], place=place)


def _limited(prompts: tuple[str, ...], source: NamedPrompts) -> tuple[str, ...]:
    if source.limit is None or source.limit >= len(prompts):
        return prompts
    if source.seed is None:
        return prompts[: source.limit]
    drawn = _permutation(source.seed, f"set/{source.name}", len(prompts))[: source.limit]
    return tuple(prompts[number] for number in sorted(drawn))


def _from_hub(source: HubPrompts) -> Iterator[str]:
    place = f"prompts.dataset is '{source.dataset}'"
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ConfigError(
            f"{place}, and reading it needs the package datasets; install it with: pip install 'fewstep[hub]'."
        ) from error
    try:
        rows = load_dataset(source.dataset, split=source.split, revision=source.revision)
    except Exception as error:
        # datasets raises many unrelated types for a wrong id, a wrong split, a gated dataset and no network
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{place} with split '{source.split}', and it cannot be loaded: {reason}.") from error
    if source.column not in rows.column_names:
        raise ConfigError(
            f"prompts.column is '{source.column}', which {source.dataset} does not have; "
            f"its columns are {', '.join(rows.column_names)}."
        )
    for number, text in enumerate(rows[source.column], start=1):
        # a missing value counts as a blank row: nobody can write into a dataset of others
        yield "" if text is None else require_prompt(text, place=f"Row {number} of {source.dataset}")


def prompt_index(seed: int, position: int, num_prompts: int) -> int:
    """The prompt at a position of the endless sequence of samples.

    Every stretch of ``num_prompts`` positions is a permutation of its own, so each prompt comes once per epoch.

    Args:
        seed: Of the run.
        position: ``step * batch + j`` with j the sample's position in the global batch.
        num_prompts: Length of an epoch.
    """
    epoch, place = divmod(position, num_prompts)
    return int(_permutation(seed, epoch, num_prompts)[place])


# a batch touches two epochs, or as many as it holds when prompts are few
@lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int | str, num_prompts: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    name = f"{seed}/prompts/{epoch}".encode()
    key = int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key)).permutation(num_prompts)
