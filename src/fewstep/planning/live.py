"""How much memory live tensors take, from what operations make and what becomes garbage; needs no device."""

import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class LiveStorage(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that operations inside make, on the meta device too.

    A storage that an operation only looks into, as into a mapped file of embeddings, is not counted.

    Args:
        known: Tensors whose storages are there already.
        count_known: Whether those count.

    Attributes:
        now: Bytes alive.
        peak: The most there were since :meth:`restart`.
    """

    def __init__(self, known: Iterable[Tensor], *, count_known: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = {storage._cdata: storage for storage in (tensor.untyped_storage() for tensor in known)}
        self.now = sum(storage.nbytes() for storage in self._known.values()) if count_known else 0
        self.peak = self.now
        self._references: dict[int, weakref.ref[Any]] = {}
        self._sizes: dict[int, int] = {}
        self._resizable: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {storage._cdata for storage in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            made = storage._cdata not in given
            self._see(storage, made=made, resizable=func is torch.ops.aten.empty.memory_format)
        for key in list(self._resizable):
            self._measure_again(key)
        self.peak = max(self.peak, self.now)
        return result

    def restart(self) -> None:
        """Begin a new peak at what is alive now."""
        self.peak = self.now

    def _see(self, storage: torch.UntypedStorage, *, made: bool, resizable: bool) -> None:
        key = storage._cdata
        if key in self._known or key in self._sizes:
            return
        self._sizes[key] = storage.nbytes() if made else 0
        self._references[key] = weakref.ref(storage, partial(self._gone, key))
        self.now += self._sizes[key]
        if resizable:
            self._resizable.add(key)

    def _measure_again(self, key: int) -> None:
        """Spread networks free what they gathered by resizing it to nothing, which is no operation."""
        storage = self._references[key]()
        if storage is not None:
            self.now += storage.nbytes() - self._sizes[key]
            self._sizes[key] = storage.nbytes()

    def _gone(self, key: int, reference: Any) -> None:
        self.now -= self._sizes.pop(key)
        del self._references[key]
        self._resizable.discard(key)


def _storages(values: Any) -> list[torch.UntypedStorage]:
    from fewstep.distributed.sharding import local  # FSDP2 and sympy, half a second

    return [local(value).untyped_storage() for value in pytree.tree_leaves(values) if isinstance(value, Tensor)]
