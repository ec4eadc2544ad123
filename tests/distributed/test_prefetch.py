"""Weights are gathered ahead of their use, in the order of use, and never kept past a write."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup

from fewstep.config import load_recipe
from fewstep.distributed import sharding
from fewstep.distributed.sharding import Policy, begin_gathering, build_mesh, fill, local, settle, shard, skeleton
from fewstep.distributed.world import join
from fewstep.errors import ConfigError


class Block(nn.Module):
    """Says when it computes."""

    def __init__(self, name: str, events: list[str]) -> None:
        super().__init__()
        self.name, self.events = name, events
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.events.append(f"compute {self.name}")
        answer: Tensor = self.linear(x)
        return answer


class Network(nn.Module):
    """Its middle is defined last, as in a UNet."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        self.name = "root"
        self.entry = nn.Linear(4, 4)
        self.down, self.up, self.middle = (Block(name, events) for name in ("down", "up", "middle"))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.up(self.middle(self.down(self.entry(x))))
        return answer


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch) -> Iterator[DeviceMesh]:
    monkeypatch.setattr(sharding, "SMALLEST_GROUP", 0)
    with join(torch.device("cpu"), timeout_minutes=1) as world:
        made = build_mesh(world)
        assert made is not None
        yield made


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens, in order: ``gather NAME`` and ``compute NAME``."""
    seen: list[str] = []
    unshard = FSDPParamGroup.unshard

    def told(group: FSDPParamGroup, async_op: bool = False) -> None:
        if group._all_gather_result is None and not group.is_unsharded:
            seen.append(f"gather {group.modules[0].name}")
        unshard(group, async_op)

    monkeypatch.setattr(FSDPParamGroup, "unshard", told)
    return seen


def spread(events: list[str], mesh: DeviceMesh, prefetch: int | None) -> nn.Module:
    network = Network(events)
    # the copy shares no list with the original
    copy = shard(skeleton(network), {"Block"}, mesh, Policy(prefetch=prefetch))
    for module in copy.modules():
        if isinstance(module, Block):
            module.events = events
    return fill(copy, dict(network.named_parameters()), device=torch.device("cpu"), main=True)


def call(network: nn.Module) -> Tensor:
    with torch.no_grad():
        answer: Tensor = network(torch.ones(2, 4))
    return answer


@pytest.mark.parametrize(
    ("prefetch", "order"),
    [
        (None, "gather root, gather down, compute down, gather middle, compute middle, gather up, compute up"),
        (1, "gather root, gather down, gather middle, compute down, gather up, compute middle, compute up"),
        (2, "gather root, gather down, gather middle, gather up, compute down, compute middle, compute up"),
    ],
)
def test_blocks_are_gathered_ahead_in_the_order_of_the_first_call(
    prefetch: int | None, order: str, mesh: DeviceMesh, events: list[str]
) -> None:
    network = spread(events, mesh, prefetch)
    first = call(network)
    events.clear()
    assert torch.equal(call(network), first)
    assert ", ".join(events) == order


def test_a_network_that_began_needs_nothing_at_its_call(mesh: DeviceMesh, events: list[str]) -> None:
    network = spread(events, mesh, 1)
    begin_gathering(network)
    assert events == []  # which block comes first is not known yet
    first = call(network)
    events.clear()
    begin_gathering(network)
    assert events == ["gather root", "gather down"]
    assert torch.equal(call(network), first)
    assert sorted(events).count("gather root") == 1 and sorted(events).count("gather down") == 1


def test_without_the_setting_nothing_begins(mesh: DeviceMesh, events: list[str]) -> None:
    network = spread(events, mesh, None)
    call(network)
    events.clear()
    begin_gathering(network)
    assert events == []


def test_weights_written_after_a_call_are_used_whatever_was_gathered_ahead(mesh: DeviceMesh, events: list[str]) -> None:
    network = spread(events, mesh, 2)
    for _ in range(2):
        call(network)
    settle(network)
    with torch.no_grad():
        for parameter in network.parameters():
            local(parameter.detach()).zero_()
    assert call(network).abs().max() == 0


def test_blocks_that_are_compiled_are_not_watched() -> None:
    with pytest.raises(ConfigError, match=r"memory\.prefetch is 1 and memory\.compiled is true"):
        load_recipe("digits", ["memory.prefetch=1", "memory.compiled=true"])
