"""Embedding prompts, by one process or many: each writes shards of its own, and what a kill leaves behind is used.

    prompts --calls--> rows --> .building-KEY/prompts-NUMBER-HASH.safetensors --all there--> KEY/

Shards cover fixed stretches of the list, whoever writes them, so that a build may go on with another number of
processes. A finished shard is kept when its content has the hash of its name.
"""

import logging
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from fewstep.backbones.finite import require_finite_encoding
from fewstep.backbones.prompt_lengths import warn_of_cut_prompts
from fewstep.backbones.protocol import ModelAdapter
from fewstep.backbones.using import using
from fewstep.core.conditioning import Conditioning
from fewstep.data import stored_prompt
from fewstep.data.shards import find_shard, is_whole, open_shard, without_rows, write_shard
from fewstep.data.sizes import SizeEstimate, free_bytes, gib
from fewstep.data.stored_prompt import StoredPrompt
from fewstep.errors import ConfigError, FewstepError
from fewstep.files import explain_write_errors, write_json
from fewstep.seals import seal

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")

_SHARD_BYTES = 256 * 2**20
"""No shard is larger, counted with the padding; a process holds about three times as much while it writes one."""
_PROMPTS_PER_CALL = 32
INDEX, NULL, PLACES = "index.json", "null.safetensors", "places.safetensors"

Progress = Callable[[int, int], None]
"""Told how many prompts of how many are embedded, about, when several processes work."""


class EmbeddingStoppedError(FewstepError):
    """Someone asked to stop; raised by what is told the progress. Finished shards are kept.

    Args:
        interrupted: Whether it was Ctrl-C.
    """

    def __init__(self, interrupted: bool) -> None:
        super().__init__(interrupted)
        self.interrupted = interrupted


class Processes(Protocol):
    """Those that build together; :class:`~fewstep.distributed.world.World` is one."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def from_main(self, work: Callable[[], _T]) -> _T: ...

    def all_or_none(self, work: Callable[[], None]) -> None: ...


class Alone:
    """A process by itself."""

    rank = 0
    size = 1

    def from_main(self, work: Callable[[], _T]) -> _T:
        return work()

    def all_or_none(self, work: Callable[[], None]) -> None:
        work()


@dataclass(frozen=True)
class _Agreement:
    """What all processes have to agree on.

    Attributes:
        shapes: Of one prompt's tensors, padding included, by name.
        prompts_per_shard: In every shard but the last.
        estimate: What the whole will take.
    """

    shapes: dict[str, tuple[int, ...]]
    prompts_per_shard: int
    estimate: SizeEstimate


@dataclass(frozen=True)
class Build:
    """One build of one process.

    Attributes:
        published: Where the cache appears when it is complete.
        adapter: Of the teacher whose text encoders are used.
        prompts: Without repetitions.
        device: Where the text encoders run.
        dtype: Of the text encoders and of the embeddings.
        processes: Who builds.
    """

    published: Path
    adapter: ModelAdapter
    prompts: Sequence[str]
    device: torch.device | str
    dtype: torch.dtype
    processes: Processes

    def run(
        self,
        positions: Sequence[int],
        *,
        on_estimate: Callable[[SizeEstimate], None] | None,
        on_progress: Progress | None,
    ) -> None:
        """Embed what is missing and publish the whole; the pipeline is known to the functions below only.

        Args:
            positions: Of each prompt of the user's list in ``prompts``.
            on_estimate: Called once, by process 0, before the first shard.
            on_progress: Called while prompts are embedded.
        """
        agreed, null = self._embed(on_estimate, on_progress)
        self.processes.from_main(lambda: self._publish(agreed, null, positions))

    def _embed(
        self, on_estimate: Callable[[SizeEstimate], None] | None, on_progress: Progress | None
    ) -> tuple[_Agreement, dict[str, Tensor]]:
        pipeline = self.adapter.load_pipeline(dtype=self.dtype, **{self.adapter.network_component: None, "vae": None})
        pipeline.to(self.device)
        agreed = self.processes.from_main(lambda: self._agree(pipeline, on_estimate))
        with explain_write_errors(self.published):
            self._folder(agreed).mkdir(parents=True, exist_ok=True)
        count = -(-len(self.prompts) // agreed.prompts_per_shard)
        for first in range(0, count, self.processes.size):
            own = first + self.processes.rank
            report = _Report(on_progress, first * agreed.prompts_per_shard, self.processes.size, len(self.prompts))
            work = partial(self._shard, agreed, pipeline, own, report) if own < count else _nothing
            # in step with the others: an error of one, such as a full disk, is told by all before the next shard
            self.processes.all_or_none(work)
        return agreed, self._stored(pipeline, self.adapter.encode_null(pipeline)) if self.processes.rank == 0 else {}

    def _agree(self, pipeline: Any, on_estimate: Callable[[SizeEstimate], None] | None) -> _Agreement:
        """Measure prompts from all over the list, and refuse what the disk cannot hold."""
        with using(self.adapter.config.model, "embed prompts"):
            warn_of_cut_prompts(self.adapter, pipeline, self.prompts)
        every = max(1, len(self.prompts) // _PROMPTS_PER_CALL)
        sample = self._encoded(pipeline, self.prompts[::every][:_PROMPTS_PER_CALL])
        rows = stored_prompt.split(stored_prompt.clear_padding(sample))
        shapes = {name: tuple(value.shape[1:]) for name, value in sample.items()}
        padded = sum(value[0].nbytes for value in sample.values())
        agreed = _Agreement(
            shapes,
            _prompts_per_shard(padded),
            SizeEstimate(
                num_prompts=len(self.prompts),
                bytes_per_prompt=-(-sum(map(stored_prompt.num_bytes, rows)) // len(rows)),
                measured_on=len(rows),
            ),
        )
        folder = self._folder(agreed)
        finished = sum(path.stat().st_size for path in folder.glob("prompts-*")) if folder.is_dir() else 0
        free = free_bytes(self.published.parent)
        if on_estimate is not None:
            on_estimate(agreed.estimate)
        _require_room(agreed.estimate, finished=finished, free=free, folder=self.published.parent)
        return agreed

    def _encoded(self, pipeline: Any, prompts: Sequence[str]) -> dict[str, Tensor]:
        with using(self.adapter.config.model, "embed prompts"):
            return self._stored(pipeline, self.adapter.encode(pipeline, prompts))

    def _shard(self, agreed: _Agreement, pipeline: Any, number: int, report: "_Report") -> None:
        folder = self._folder(agreed)
        start = number * agreed.prompts_per_shard
        stop = min(start + agreed.prompts_per_shard, len(self.prompts))
        found = find_shard(folder, number)
        if found is not None and is_whole(found):
            report(stop - start)
            return
        if found is not None:
            _logger.warning(f"{found} was not written as a whole; its prompts are embedded again.")
            found.unlink(missing_ok=True)
        rows: dict[bytes, StoredPrompt] = {}
        digests = []
        for first in range(start, stop, _PROMPTS_PER_CALL):
            last = min(first + _PROMPTS_PER_CALL, stop)
            encoded = self._encoded(pipeline, self.prompts[first:last])
            for row in stored_prompt.split(stored_prompt.clear_padding(encoded)):
                digests.append(stored_prompt.digest(row))
                rows.setdefault(digests[-1], row)
            report(last - start)
        write_shard(folder, number, rows, prompts=digests)

    def _publish(self, agreed: _Agreement, null: dict[str, Tensor], positions: Sequence[int]) -> None:
        folder = self._folder(agreed)
        if self.published.is_dir():  # another run was faster
            shutil.rmtree(folder, ignore_errors=True)
            return
        shards = _complete(folder, -(-len(self.prompts) // agreed.prompts_per_shard))
        with explain_write_errors(self.published):
            shards, places = _without_repetitions(shards)
            save_file({"places": places[torch.as_tensor(positions)]}, folder / PLACES)
            save_file(null, folder / NULL)
            _write_index(folder, shards, agreed)
            _rename(folder, self.published)

    def _folder(self, agreed: _Agreement) -> Path:
        return self.published.with_name(f".building-{self.published.name}-{agreed.prompts_per_shard}")

    def _stored(self, pipeline: Any, cond: Conditioning) -> dict[str, Tensor]:
        require_finite_encoding(self.adapter, pipeline, cond)
        # masks and ids keep their type; copied, because the pipeline may return views of one storage
        return {
            name: value.to("cpu", self.dtype if value.is_floating_point() else value.dtype).clone(
                memory_format=torch.contiguous_format
            )
            for name, value in cond.tensors.items()
        }


@dataclass(frozen=True)
class _Report:
    """Turns what one process did of its shard into what all did of the list."""

    progress: Progress | None
    before: int
    processes: int
    total: int

    def __call__(self, done: int) -> None:
        if self.progress is not None:
            self.progress(min(self.before + done * self.processes, self.total), self.total)


def _nothing() -> None:
    """The part of a process that is left without a shard."""


def _prompts_per_shard(padded_bytes: int) -> int:
    """As many as fit, in whole calls where one fits."""
    fitting = max(1, _SHARD_BYTES // padded_bytes)
    return fitting if fitting < _PROMPTS_PER_CALL else fitting - fitting % _PROMPTS_PER_CALL


def _require_room(estimate: SizeEstimate, *, finished: int, free: int, folder: Path) -> None:
    if estimate.total_bytes - finished > free:
        raise ConfigError(
            f"The embeddings of {estimate.num_prompts} prompts need about {gib(estimate.total_bytes)} "
            f"({estimate.bytes_per_prompt} bytes a prompt), of which {gib(finished)} are there, but the disk of "
            f"{folder} has {gib(free)} free; free some space, use fewer prompts, or put the runs on another disk "
            "with --root."
        )


def _complete(folder: Path, count: int) -> list[Path]:
    found = [find_shard(folder, number) for number in range(count)]
    missing = sum(path is None for path in found)
    if missing:
        raise ConfigError(
            f"{missing} of {count} shards of prompt embeddings are not in {folder} although they were written; "
            "all processes have to see one file system there (choose it with --root)."
        )
    return [path for path in found if path is not None]


def _without_repetitions(shards: Sequence[Path]) -> tuple[list[Path], Tensor]:
    """Keep each row in one shard, and say for each prompt which shard and which row of it."""
    holder: dict[bytes, int] = {}
    kept = []
    for number, path in enumerate(shards):
        names = open_shard(path).row_digests
        superfluous = {name for name in names if holder.setdefault(name, number) != number}
        kept.append(without_rows(path, number, superfluous) if superfluous else path)
    return kept, _places(kept)


def _places(shards: Sequence[Path]) -> Tensor:
    rows: dict[bytes, tuple[int, int]] = {}
    for number, path in enumerate(shards):
        rows.update({name: (number, row) for row, name in enumerate(open_shard(path).row_digests)})
    wanted: Iterable[tuple[int, int]] = (rows[name] for path in shards for name in open_shard(path).prompt_digests)
    return torch.tensor(list(wanted), dtype=torch.int32)


def _write_index(folder: Path, shards: Sequence[Path], agreed: _Agreement) -> None:
    kept = {path.name for path in shards} | {NULL, PLACES}
    for path in folder.iterdir():  # what killed or slower builds left
        if path.name not in kept:
            path.unlink(missing_ok=True)
    index = {
        "files": {path.name: seal(path).model_dump() for path in sorted(folder.iterdir())},
        "shards": [path.name for path in shards],
        "shapes": {name: list(shape) for name, shape in agreed.shapes.items()},
    }
    write_json(folder / INDEX, index)


def _rename(unfinished: Path, published: Path) -> None:
    try:
        unfinished.rename(published)
    except OSError:
        # another run was faster: its cache has the same key, so the same content
        if not published.is_dir():
            raise
