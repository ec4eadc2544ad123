"""When a process of the run dies, the others end too and say which one it was."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from fewstep.errors import FewstepError

_GRACE_SECONDS = 5.0  # for the others to notice and to leave their word
_LOST = "lost the others"
# what torch's exchanges say when they fail; gloo's are plain RuntimeErrors
_EXCHANGE = re.compile(r"gloo|nccl|timed out|connection|broken pipe", re.IGNORECASE)


class LostProcessError(FewstepError, RuntimeError):
    """Another process of the run is gone; nothing can be computed without it."""

    exit_code = 1


@contextmanager
def explain_lost_processes(rank: int, size: int) -> Iterator[None]:
    """Turn a failed exchange between processes into one sentence that names the process that is gone.

    Every process that ends with an error leaves its last word in the launcher's store; one that is killed leaves
    none. So those without a word are the lost ones.
    """
    try:
        yield
    except BaseException as error:
        if size == 1:
            raise
        broken = _is_exchange(error)
        _leave_word(rank, _LOST if broken else _word(error))
        if isinstance(error, FewstepError) and rank > 0:
            # most errors are every process's: one tells them
            error.told = _last_words([0])[0] == _word(error)
        if not broken:
            raise
        words = _last_words([other for other in range(size) if other != rank])
        gone = [other for other, word in words.items() if word is None]
        reasons = {other: word for other, word in words.items() if word is not None and word != _LOST}
        if not gone and not reasons:
            raise
        lost = LostProcessError(_sentence(rank, gone, reasons))
        # of the survivors, the one with the lowest number talks
        lost.told = any(other < rank for other, word in words.items() if word == _LOST)
        raise lost from error


def _is_exchange(error: BaseException) -> bool:
    """Whether it was an exchange that failed; a RuntimeError can be this process's own, such as no memory on a GPU."""
    if not isinstance(error, RuntimeError) or isinstance(error, (FewstepError, torch.OutOfMemoryError)):
        return False
    return isinstance(error, dist.DistError) or _EXCHANGE.search(str(error)) is not None


def _word(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _leave_word(rank: int, word: str) -> None:
    store = _store()
    if store is not None:
        try:
            store.set(f"fewstep/ended/{rank}", word)
        except RuntimeError:
            return  # the store died with the process that held it


def _last_words(ranks: Sequence[int]) -> dict[int, str | None]:
    """The last words of some processes, by rank, waiting a little; None for one that left none."""
    store, deadline = _store(), time.monotonic() + _GRACE_SECONDS
    words: dict[int, str | None] = {}
    for other in ranks:
        words[other] = None
        while store is not None:
            try:
                if store.check([f"fewstep/ended/{other}"]):
                    words[other] = store.get(f"fewstep/ended/{other}").decode()
                    break
            except RuntimeError:
                store = None
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
    return words


def _store() -> Any:
    if not dist.is_initialized():
        return None
    return dist.distributed_c10d._get_default_store()


def _sentence(rank: int, gone: list[int], reasons: dict[int, str]) -> str:
    if reasons:
        first = min(reasons)
        return f"Process {first} stopped with {reasons[first]}, so process {rank} stopped too; resume with --resume."
    names = ", ".join(map(str, gone))
    return (
        f"Process {names} is gone without a word (killed, out of memory, hanging, or its machine is lost), so process "
        f"{rank} stopped too; start the same command with --resume."
    )
