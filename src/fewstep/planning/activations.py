"""What one call of a network keeps for its backward, measured on the meta device.

Operations without values tell which storages would be alive. Of a row of equal blocks two or three are run, and the
rest follow on the line through them; of one and two samples any number follows.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop

from fewstep.backbones.diffusers_adapter import DiffusersAdapter
from fewstep.core.points import NoisyLatent
from fewstep.garbage import libraries_are_there
from fewstep.planning.live import LiveStorage
from fewstep.planning.meta_networks import prompts_without_values
from fewstep.roles.lora import LoraSwitch, attach
from fewstep.roles.recomputation import Recomputation, enable_recomputation
from fewstep.roles.weights import LoraWeights

# fewer equal blocks in a row than this are all run
_SHORTEST_ROW = 4
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@dataclass(frozen=True)
class _Line:
    """Bytes as they grow with the number of samples."""

    constant: float
    per_sample: float

    def at(self, samples: float) -> float:
        """Of so many samples."""
        return max(0.0, self.constant + self.per_sample * samples) if samples else 0.0


@dataclass(frozen=True)
class Activations:
    """Memory of one call, without weights, their gradients and what the network is called with.

    Attributes:
        forward: Most at once in a forward without gradient.
        kept: What the graph of a forward with gradient holds until its backward.
        backward: Most at once in forward and backward together.
    """

    forward: _Line
    kept: _Line
    backward: _Line


@dataclass
class PlannedNetwork:
    """A network on the meta device as a role calls it.

    Attributes:
        switch: Of a network that holds factors.
    """

    adapter: DiffusersAdapter
    network: nn.Module
    compute: torch.dtype
    switch: LoraSwitch | None = None

    @classmethod
    def trained(cls, adapter: DiffusersAdapter, *, compute: torch.dtype) -> "PlannedNetwork":
        """One of which every weight is trained, as it is while it computes: weights cast, buffers not."""
        network = adapter.network_without_weights().requires_grad_(True)
        for parameter in network.parameters():
            parameter.data = parameter.data.to(compute)
        return cls(adapter, network, compute)

    @classmethod
    def frozen(
        cls, adapter: DiffusersAdapter, factors: dict[str, LoraWeights], *, compute: torch.dtype
    ) -> "PlannedNetwork":
        """The teacher's, with the factors of the roles that train some."""
        network = nn.Module.to(adapter.network_without_weights(), compute)
        for role, weights in factors.items():
            attach(network, weights, role, targets=adapter.get_lora_target_modules())
        return cls(adapter, network, compute, LoraSwitch(network) if factors else None)

    def activations(self, kind: Recomputation, *, factors: str | None = None) -> Activations:
        """Of forward, graph and backward when all weights are trained, or ``factors`` of one role."""
        disable = self.network.disable_gradient_checkpointing
        assert callable(disable)
        disable()
        enable_recomputation(self.network, kind, self.switch)
        kept, backward = self._lines(partial(_trace_backward, self, factors))
        return Activations(self._forward, kept, backward)

    @cached_property
    def _forward(self) -> _Line:
        """Of forwards without gradient, whatever would be computed again, and of whichever factors act."""
        (line,) = self._lines(partial(_trace_forward, self))
        return line

    def _lines(self, measure: Callable[[int], Sequence[float]]) -> list[_Line]:
        one, two = (_over_rows(self, partial(measure, samples)) for samples in (1, 2))
        return [_Line(float(2 * first - second), float(second - first)) for first, second in zip(one, two, strict=True)]

    def forward_flops(self) -> float:
        """Floating-point operations of one forward of one sample."""

        def count() -> Sequence[float]:
            point, cond = _inputs(self, 1)
            counter = FlopCounterMode(display=False, custom_mapping={_FLASH: _flash_flops})
            with torch.no_grad(), KnownMasks(), _FlashOnMeta(), counter:
                self.adapter.velocity(self.network, point, cond)
            return [float(counter.get_total_flops())]

        return _over_rows(self, count)[0]


def _trace_forward(planned: PlannedNetwork, samples: int) -> Sequence[float]:
    with _traced(planned, samples) as (live, call), torch.no_grad():
        call()
        return [live.peak]


def _trace_backward(planned: PlannedNetwork, role: str | None, samples: int) -> Sequence[float]:
    switch = planned.switch
    with _traced(planned, samples) as (live, call), _dropped_gradients(planned.network):
        with nullcontext() if role is None or switch is None else switch.use(role):
            velocity = call()
        kept = live.now
        # the engine itself: inside Tensor.backward no function mode acts, and recomputed attention would be meta's own
        _engine_run_backward(
            (velocity,), (torch.empty_like(velocity),), False, False, (), allow_unreachable=True, accumulate_grad=True
        )
        return [kept, live.peak]


@contextmanager
def _traced(planned: PlannedNetwork, samples: int) -> Iterator[tuple[LiveStorage, Callable[[], Tensor]]]:
    libraries_are_there()
    network, adapter = planned.network, planned.adapter
    point, cond = _inputs(planned, samples)
    known = [*network.parameters(), *network.buffers(), point.x_sigma, point.sigma, *cond.tensors.values()]
    with KnownMasks(), _FlashOnMeta(), LiveStorage(known) as live:
        yield live, partial(adapter.velocity, network, point, cond)


def _inputs(planned: PlannedNetwork, samples: int) -> tuple[NoisyLatent, Any]:
    adapter = planned.adapter
    adapter.compute_dtype = planned.compute
    shape = adapter.latent_shape(adapter.config.height, adapter.config.width)
    latents = torch.empty(samples, *shape, device="meta")
    prompts = prompts_without_values(adapter, samples, planned.compute)
    return NoisyLatent(latents, torch.empty(samples, device="meta")), prompts


@contextmanager
def _dropped_gradients(network: nn.Module) -> Iterator[None]:
    """Let every weight's gradient go as soon as it is made: gradients are counted by formula."""

    def drop(parameter: Tensor) -> None:
        parameter.grad = None

    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    handles = [parameter.register_post_accumulate_grad_hook(drop) for parameter in trained]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class KnownMasks(TorchFunctionMode):
    """For networks on the meta device that read the values of a mask: it lies on the CPU, and so do its indices.

    An operation that only moves values by them is told of them without their values.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        place = _MOVED_BY.get(func)
        if place is not None and any(isinstance(value, Tensor) and value.is_meta for value in args):
            args = (*args[:place], args[place].to("meta"), *args[place + 1 :])
        return func(*args, **(kwargs or {}))


# where each of them has its mask or indices; the second is the gradient of repeat_interleave
_MOVED_BY = {torch.where: 0, torch.ops.aten.index_add.default: 2}


class _FlashOnMeta(TorchFunctionMode):
    """Attention that keeps no matrix of weights, as every device that trains has it; meta's own would keep one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            return _flash(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = attn_mask.to(query.dtype)
    output: Tensor = _FLASH(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
    return output


def _flash_flops(query: Any, key: Any, value: Any, *args: Any, out_val: Any = None, **kwargs: Any) -> int:
    return int(sdpa_flop(query, key, value))  # a counter gives its formulas shapes


def _over_rows(planned: PlannedNetwork, measure_once: Any) -> Sequence[float]:
    """What a measurement would give on the whole network, when it grows along a line with each row of blocks."""
    rows = _equal_rows(planned)
    if not rows:
        return list(measure_once())
    with _shortened(planned.network, rows, longer=None):
        base = measure_once()
    total = list(base)
    for row in rows:
        with _shortened(planned.network, rows, longer=row):
            more = measure_once()
        for place, (before, after) in enumerate(zip(base, more, strict=True)):
            total[place] += (row.length - 2) * (after - before)
    return total


@dataclass(frozen=True)
class _Row:
    """Equal blocks one after the other in a list of the network."""

    name: str
    start: int
    length: int


def _equal_rows(planned: PlannedNetwork) -> list[_Row]:
    rows = []
    for name, child in planned.network.named_children():
        if not isinstance(child, nn.ModuleList):
            continue
        if not all(type(block).__name__ in planned.adapter.block_classes for block in child):
            continue
        signs = [[(label, p.shape) for label, p in block.named_parameters()] for block in child]
        start = 0
        for place in range(1, len(signs) + 1):
            if place == len(signs) or signs[place] != signs[start]:
                rows.append(_Row(name, start, place - start))
                start = place
    return [row for row in rows if row.length >= _SHORTEST_ROW]


@contextmanager
def _shortened(network: nn.Module, rows: Sequence[_Row], *, longer: _Row | None) -> Iterator[None]:
    """Two blocks of each row for a while, three of the longer one."""
    whole = {row.name: getattr(network, row.name) for row in rows}
    for name, blocks in whole.items():
        dropped: set[int] = set()
        for row in rows:
            if row.name == name:
                dropped |= set(range(row.start + (3 if row == longer else 2), row.start + row.length))
        setattr(network, name, nn.ModuleList(block for place, block in enumerate(blocks) if place not in dropped))
    try:
        yield
    finally:
        for name, blocks in whole.items():
            setattr(network, name, blocks)
