"""Make student, teacher and fake score from one checkpoint, spread over the processes of the run.

Process 0 loads the checkpoint once. Every process builds the networks it needs without weights, spreads them, and gets
its parts:

    full student, full fake score      three networks: teacher in the compute precision, the others in float32
    factors for one or both            they sit on the teacher's network, frozen in the compute precision or fewer bits
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from fewstep.backbones.protocol import ModelAdapter
from fewstep.distributed.sharding import Policy, fill, shard, skeleton
from fewstep.distributed.world import World
from fewstep.errors import ConfigError
from fewstep.roles.compilation import Compilation, compile_blocks, records_graphs, require_graphs
from fewstep.roles.lora import LoraSwitch, attach, base_name, initial_factor, is_factor, plain_name
from fewstep.roles.quantised import empty_blocks, require_quantised, store_weights
from fewstep.roles.recomputation import Recomputation, enable_recomputation
from fewstep.roles.role import Role, Roles
from fewstep.roles.start import StartWeights, read_start, require_room
from fewstep.roles.weights import Base, FullWeights, LoraWeights, StartFromLora, StartFromModel

STUDENT, FAKE_SCORE = "student", "fake_score"


@dataclass(frozen=True)
class RoleSettings:
    """What decides how the networks are held.

    Attributes:
        student, fake_score: Which of their weights are trained.
        compute: Precision of every forward and backward; trained weights stay float32 whatever it is, because an
            update of size lr rounds to nothing in bfloat16.
        frozen: Precision of the frozen network between its calls, in which it computes as the others; None is compute.
        checkpointing: Of the activations.
        offload_teacher: Keep the frozen network in the memory of the CPU between its calls.
        offload_trained: Keep trained weights and the optimiser's state there.
        prefetch: Blocks whose weights are gathered ahead of the one that computes; None leaves it to FSDP2.
        compiled: Run the blocks through torch.compile; it needs a C++ compiler, or Triton on a GPU. Recorded as CUDA
            graphs, weights have to stay where they are, so FSDP2 never holds them.
        seed: Names the initial low-rank factors.
        start: Where the student starts; None is the teacher. The fake score starts as the teacher in any case: it has
            to learn the student's distribution wherever that is, and its frozen counterpart is the teacher. With
            factors it takes the student's A and a B of zero, so that it is the teacher and alignment averages factors
            of one A.
    """

    student: FullWeights | LoraWeights = field(default_factory=FullWeights)
    fake_score: FullWeights | LoraWeights = field(default_factory=FullWeights)
    compute: torch.dtype = torch.float32
    frozen: torch.dtype | None = None
    checkpointing: Recomputation = False
    offload_teacher: bool = False
    offload_trained: bool = False
    prefetch: int | None = None
    compiled: Compilation = False
    seed: int = 0
    start: StartFromLora | StartFromModel | None = None

    @property
    def factors(self) -> dict[str, LoraWeights]:
        """The roles that train low-rank factors."""
        chosen = {STUDENT: self.student, FAKE_SCORE: self.fake_score}
        return {role: weights for role, weights in chosen.items() if isinstance(weights, LoraWeights)}

    @property
    def spread_alone(self) -> bool:
        """Whether FSDP2 does something for one process by itself: cast weights, or keep them on the CPU."""
        if records_graphs(self.compiled):
            return False
        return self.compute != torch.float32 or self.widened or self.offload_teacher or self.offload_trained

    @property
    def widened(self) -> bool:
        """Whether frozen weights are cast at each use."""
        return self.frozen not in (None, self.compute)

    @property
    def rounded(self) -> bool:
        """Whether the checkpoint becomes nothing but the frozen network, in the compute precision."""
        return len(self.factors) == 2 and self.base == "compute" and not self.widened

    @property
    def base(self) -> Base:
        """How the frozen network is held; roles with factors agree on it."""
        (base,) = {weights.base for weights in self.factors.values()} or {"compute"}
        return base


def build_roles(adapter: ModelAdapter, settings: RoleSettings, world: World, mesh: DeviceMesh | None = None) -> Roles:
    """Load the checkpoint once and give each role its network, all in eval mode (dropout off).

    Args:
        adapter: The backbone; its ``compute_dtype`` is set.
        settings: How the networks are held.
        world: The processes of the run.
        mesh: Over which networks are spread; None keeps them whole, for a process by itself.

    Raises:
        ConfigError: A target of the low-rank factors names no layer of the network, a quantised base cannot be held, or
            no CUDA graphs can be recorded.
    """
    require_quantised(settings.factors, world)
    require_graphs(settings.compiled, world)
    require_widened(settings, world, mesh)
    source = _Source(adapter, settings, world, mesh)
    adapter.compute_dtype = settings.compute
    base, switch = source.base()
    # unspread float32 weights are cast at each use; spread ones are cast when they are gathered
    autocast = None if mesh is not None or settings.compute == torch.float32 else settings.compute

    def trained(role: str) -> Role:
        if role in settings.factors:
            return Role(base, adapter, switch=switch, factors=role)
        return Role(source.trained(role), adapter, autocast=autocast)

    return Roles(student=trained(STUDENT), teacher=Role(base, adapter, switch=switch), fake_score=trained(FAKE_SCORE))


def require_widened(settings: RoleSettings, world: World, mesh: DeviceMesh | None) -> None:
    """Raise ConfigError when frozen weights are held in another precision and nothing here would cast them."""
    if settings.widened and mesh is None:
        raise ConfigError(
            f"precision.frozen casts weights at each use, which FSDP2 does, and it does not serve {world.device.type}; "
            "set precision.frozen=null, or parallel.device=cpu."
        )


class _Source:
    """The loaded checkpoint, from which networks are made; whole at process 0, a skeleton elsewhere."""

    def __init__(self, adapter: ModelAdapter, settings: RoleSettings, world: World, mesh: DeviceMesh | None) -> None:
        self.adapter, self.settings, self.world, self.mesh = adapter, settings, world, mesh
        self.weights: Mapping[str, Tensor] = {}
        self.start: StartWeights | None = None

        def load() -> nn.Module:
            self.start = read_start(adapter, settings.start)
            # a merged LoRA is added to weights that are not rounded yet
            exact = not settings.rounded or adapter.config.lora
            dtype = torch.float32 if exact else settings.compute
            network = adapter.load_network(dtype=dtype).eval().requires_grad_(False)
            self.weights = dict(network.named_parameters())
            return skeleton(network)

        self.skeleton = world.from_main(load)

    def base(self) -> tuple[nn.Module, LoraSwitch | None]:
        """The frozen network: the teacher, and the base of every role with factors."""
        settings = self.settings
        # torch's own cast: the one of diffusers warns about modules to keep in float32 even when there are none
        network = nn.Module.to(skeleton(self.skeleton), settings.compute)
        for parameter in network.parameters():
            parameter.data = parameter.data.to(settings.frozen or settings.compute)
        if settings.base != "compute":
            empty_blocks(network, self.adapter.block_classes, settings.base)
        for role, weights in settings.factors.items():
            self._attach(network, weights, role)
        if STUDENT in settings.factors:
            self.world.from_main(lambda: require_room(self.start, network, STUDENT))
        switch = LoraSwitch(network) if settings.factors else None
        enable_recomputation(network, settings.checkpointing if settings.factors else False, switch)
        offload = settings.offload_teacher or (settings.offload_trained and bool(settings.factors))
        if settings.base == "compute":
            compute = settings.compute if settings.widened else None
            return self._placed(network, self.mesh, Policy(compute, offload, settings.prefetch)), switch
        network = self._placed(network, None, Policy())
        store_weights(network, self.weights, device=self.world.device)
        return network, switch

    def trained(self, role: str) -> nn.Module:
        """A network of which every weight is trained."""
        settings = self.settings
        network = skeleton(self.skeleton).requires_grad_(True)
        enable_recomputation(network, settings.checkpointing, None)
        compute = None if settings.compute == torch.float32 else settings.compute
        policy = Policy(compute, offload=settings.offload_trained, prefetch=settings.prefetch)
        weights = self.weights
        if role == STUDENT and self.start is not None:
            weights = self.start.over(weights)
        return self._placed(network, self.mesh, policy, weights)

    def _attach(self, network: nn.Module, weights: LoraWeights, role: str) -> None:
        try:
            attach(network, weights, role, targets=self.adapter.get_lora_target_modules())
        except ValueError as error:
            raise ConfigError(
                f"{role}.weights.targets is {', '.join(weights.targets or ())}, but no layer of "
                f"{self.adapter.config.model} has such a name ({error}); the backbone's own targets are "
                f"{', '.join(self.adapter.get_lora_target_modules())}."
            ) from error

    def _placed(
        self,
        network: nn.Module,
        mesh: DeviceMesh | None,
        policy: Policy,
        weights: Mapping[str, Tensor] | None = None,
    ) -> nn.Module:
        if self.settings.compiled:
            compile_blocks(network, self.adapter.block_classes, self.settings.compiled)
        if mesh is not None:
            shard(network, self.adapter.block_classes, mesh, policy)
        main = self.world.is_main
        values: Mapping[str, Tensor] = {}
        if main:
            values = _Values(self.weights if weights is None else weights, network, self.settings, self.start)
        offload = policy.offload and mesh is not None
        return fill(network, values, device=self.world.device, main=main, offload=offload)


class _Values(Mapping[str, Tensor]):
    """A network's weights by name: the checkpoint's, and first factors, each made when it is asked for."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        network: nn.Module,
        settings: RoleSettings,
        start: StartWeights | None,
    ) -> None:
        self._weights, self._settings, self._start = weights, settings, start
        self._shapes = {name: parameter.shape for name, parameter in network.named_parameters()}

    def __getitem__(self, name: str) -> Tensor:
        for role, weights in self._settings.factors.items():
            if is_factor(name, role):
                plain = plain_name(name, role)
                fresh = initial_factor(plain, self._shapes[name], seed=self._settings.seed)
                if self._start is None or STUDENT not in self._settings.factors:
                    return fresh
                scaling = weights.scaling if role == STUDENT else None
                return self._start.factor(plain, fresh, scaling=scaling)
        return self._weights[base_name(name)]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)
