"""Student, teacher and fake score as they are planned: without weights, measured on the meta device when asked for."""

from functools import cached_property

from fewstep.backbones.diffusers_adapter import DiffusersAdapter
from fewstep.config.run_config import RunConfig
from fewstep.devices import DTYPES
from fewstep.planning.activations import Activations, PlannedNetwork
from fewstep.planning.meta_networks import decoder_parameters, planned_adapter
from fewstep.planning.sizes import Spread, WeightTable
from fewstep.roles.recomputation import Recomputation
from fewstep.roles.weights import LoraWeights

STUDENT, FAKE_SCORE = "student", "fake_score"


class PlannedRoles:
    """Student, teacher and fake score without weights, and what their calls need; measured when asked for.

    Args:
        config: Decides the checkpoint, the size, the precision and which weights are trained.
        adapter: Of that checkpoint; found by its name unless given.
    """

    def __init__(self, config: RunConfig, adapter: DiffusersAdapter | None = None) -> None:
        self.adapter = planned_adapter(config.backbone) if adapter is None else adapter
        self.compute = DTYPES[config.precision.compute]
        self.weights = {STUDENT: config.student.weights, FAKE_SCORE: config.fake_score.weights}
        self.factors = {role: held for role, held in self.weights.items() if isinstance(held, LoraWeights)}
        self.base_kind = next((held.base for held in self.factors.values()), "compute")
        self._measured: dict[tuple[str, Recomputation], Activations] = {}
        self._spreads: dict[tuple[bool, int], Spread] = {}
        self._trained: dict[tuple[str, int], float] = {}
        self._moments: dict[tuple[str, int, bool], float] = {}

    @cached_property
    def base(self) -> PlannedNetwork:
        """The teacher's network, with the factors of roles that train some."""
        return PlannedNetwork.frozen(self.adapter, self.factors, compute=self.compute)

    @cached_property
    def whole(self) -> PlannedNetwork:
        """A network of which every weight is trained."""
        return PlannedNetwork.trained(self.adapter, compute=self.compute)

    @cached_property
    def base_table(self) -> WeightTable:
        """The weights of the teacher's network and of all factors."""
        return WeightTable.of(self.base.network, self.adapter.block_classes, roles=self.factors)

    @cached_property
    def whole_table(self) -> WeightTable:
        """The weights of a network that is trained whole."""
        return WeightTable.of(self.whole.network, self.adapter.block_classes)

    @cached_property
    def flops(self) -> float:
        """Of one forward of one sample, without factors."""
        return (self.whole if not self.factors else self.base).forward_flops()

    @cached_property
    def prompt_bytes(self) -> float:
        """Of the embeddings of one prompt."""
        return float(sum(tensor.num_bytes(self.compute) for tensor in self.adapter.prompt_shapes().values()))

    @cached_property
    def decoder_parameters(self) -> int:
        """Of the VAE, which draws the pictures of a sheet."""
        return decoder_parameters(self.adapter)

    def on_base(self, role: str) -> bool:
        """Whether a role calls the teacher's network, with factors or without."""
        return role in self.factors or role not in self.weights

    def weight_bytes(self, role: str) -> float:
        """Of the whole network that a role calls, as it is while it computes."""
        return float(self._table(role).size)

    def activations(self, role: str, kind: Recomputation) -> Activations:
        """What a role's calls need; roles that train alike need the same."""
        key = (repr(self.weights[role]), kind)
        if key not in self._measured:
            network = self.base if self.on_base(role) else self.whole
            self._measured[key] = network.activations(kind, factors=self._only(role))
        return self._measured[key]

    def spread(self, role: str, shards: int) -> Spread:
        """Sizes of the network that a role calls."""
        key = (self.on_base(role), shards)
        if key not in self._spreads:
            self._spreads[key] = Spread.of(self._table(role), shards)
        return self._spreads[key]

    def trained(self, role: str, shards: int) -> float:
        """Trained parameters of a role at each process."""
        key = (role, shards)
        if key not in self._trained:
            self._trained[key] = self._table(role).trained_part(shards, only=self._only(role))
        return self._trained[key]

    def moment_bytes(self, role: str, shards: int, *, packed: bool) -> float:
        """Of a role's moments at each process."""
        key = (role, shards, packed)
        if key not in self._moments:
            self._moments[key] = self._table(role).moment_bytes(shards, only=self._only(role), packed=packed)
        return self._moments[key]

    def _table(self, role: str) -> WeightTable:
        return self.base_table if self.on_base(role) else self.whole_table

    def _only(self, role: str) -> str | None:
        return role if role in self.factors else None
