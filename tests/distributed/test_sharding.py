"""Networks spread over a group of one process; the silent traps, each with the remedy and without it."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from fewstep.distributed import sharding
from fewstep.distributed.sharding import Policy, allocate, build_mesh, fill, local, settle, shard, skeleton, whole
from fewstep.distributed.world import World, join
from fewstep.errors import ConfigError
from fewstep.roles.build import RoleSettings
from fewstep.testing.closeness import additions, assert_rounded_alike


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("table", torch.arange(4.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(x + self.table.to(x.dtype))


class Network(nn.Module):
    """Two blocks and something around them; remembers the precision of the time it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Linear(4, 4)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.time_dtype = torch.float32

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        self.time_dtype = time.dtype
        x = self.entry(x)
        for block in self.blocks:
            x = block(x)
        return x * time.to(x.dtype)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(sharding, "SMALLEST_GROUP", 0)
    with join(torch.device("cpu"), timeout_minutes=1) as joined:
        yield joined


@pytest.fixture
def mesh(world: World) -> DeviceMesh:
    made = build_mesh(world)
    assert made is not None
    return made


def spread(network: Network, mesh: DeviceMesh, policy: Policy | None = None) -> nn.Module:
    copy = shard(skeleton(network), {"Block"}, mesh, policy or Policy())
    return fill(copy, dict(network.named_parameters()), device=torch.device("cpu"), main=True)


def call() -> tuple[Tensor, Tensor]:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.tensor(999.0)


def test_a_spread_network_answers_as_the_whole_one(mesh: DeviceMesh) -> None:
    network = Network()
    assert_rounded_alike(spread(network, mesh)(*call()), network(*call()), terms=additions(network))


def test_one_process_that_neither_casts_nor_offloads_keeps_its_networks_as_they_are(world: World) -> None:
    assert build_mesh(world, alone=RoleSettings().spread_alone) is None
    for settings in (RoleSettings(compute=torch.bfloat16), RoleSettings(offload_teacher=True)):
        assert build_mesh(world, alone=settings.spread_alone) is not None


def test_the_number_of_processes_is_checked_for_one_as_well(world: World) -> None:
    with pytest.raises(ConfigError, match=r"^parallel.shard is 2, but 1 processes were started"):
        build_mesh(world, shard=2, alone=False)


def test_a_skeleton_has_no_weights_and_shares_the_buffers() -> None:
    network = Network()
    bare = skeleton(network)
    assert all(parameter.is_meta for parameter in bare.parameters())
    assert [id(buffer) for buffer in bare.buffers()] == [id(buffer) for buffer in network.buffers()]


def test_weights_written_after_a_forward_without_gradient_are_used(mesh: DeviceMesh) -> None:
    network = spread(Network(), mesh)
    with torch.no_grad():
        network(*call())
        for parameter in network.parameters():
            local(parameter.detach()).zero_()
        assert network(*call()).abs().max() == 0


def test_a_small_network_stays_whole_until_it_is_settled(mesh: DeviceMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "SMALLEST_GROUP", 1_000)
    network = spread(Network(), mesh)
    kept = list(network.parameters())
    with torch.no_grad():
        before = network(*call())
        for parameter in kept:
            local(parameter.detach()).zero_()
        assert torch.equal(network(*call()), before)
        settle(network)
        assert network(*call()).abs().max() == 0


def test_a_root_that_stays_whole_would_ignore_them(mesh: DeviceMesh) -> None:
    """The reason for freeing the root; when FSDP2 does so by itself, the setting can go."""
    network = Network()
    fully_shard(network, mesh=mesh)
    kept = list(network.parameters())
    with torch.no_grad():
        network(*call())
        for parameter in kept:
            local(parameter.detach()).zero_()
        assert network(*call()).abs().max() > 0


def test_bfloat16_compute_leaves_the_time_in_float32(mesh: DeviceMesh) -> None:
    network = spread(Network(), mesh, Policy(torch.bfloat16))
    x, time = call()
    assert network(x.bfloat16(), time).dtype == torch.bfloat16
    assert network.time_dtype == torch.float32


def test_the_default_policy_would_cast_the_time(mesh: DeviceMesh) -> None:
    """The reason for casting by hand; when FSDP2 casts only what it is told to, the setting can go."""
    network = Network()
    fully_shard(network, mesh=mesh, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    network(*call())
    assert network.time_dtype == torch.bfloat16


def test_trained_weights_stay_float32_under_bfloat16_compute(mesh: DeviceMesh) -> None:
    network = spread(Network(), mesh, Policy(torch.bfloat16))
    x, time = call()
    network(x.bfloat16(), time).float().sum().backward()
    assert {whole(p).dtype for p in network.parameters()} == {torch.float32}
    assert {whole(p.grad).dtype for p in network.parameters() if p.grad is not None} == {torch.float32}


def test_blocks_get_groups_of_their_own_unless_they_are_small(
    mesh: DeviceMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.distributed.fsdp import FSDPModule

    assert sum(isinstance(module, FSDPModule) for module in spread(Network(), mesh).modules()) == 3
    monkeypatch.setattr(sharding, "SMALLEST_GROUP", 1_000)
    assert sum(isinstance(module, FSDPModule) for module in spread(Network(), mesh).modules()) == 1


def test_offloaded_weights_lie_in_the_memory_of_the_cpu(mesh: DeviceMesh) -> None:
    network = Network()
    offloaded = spread(network, mesh, Policy(offload=True))
    assert_rounded_alike(offloaded(*call()), network(*call()), terms=additions(network))
    assert {local(p.detach()).device.type for p in offloaded.parameters()} == {"cpu"}


def test_offloaded_weights_lie_there_wherever_the_network_computes(mesh: DeviceMesh) -> None:
    """FSDP2 refuses offloaded weights on the computing device; here the device without memory plays that one."""
    network = shard(skeleton(Network()), {"Block"}, mesh, Policy(offload=True))
    allocate(network, device=torch.device("meta"), offload=True)
    assert {local(p.detach()).device.type for p in network.parameters()} == {"cpu"}
    assert {buffer.device.type for buffer in network.buffers()} == {"meta"}
