"""Student, teacher and fake score as they are planned: without weights, measured on the meta device when asked for."""

from functools import cached_property
from pathlib import Path

from fewstep.backbones.diffusers_adapter import DiffusersAdapter
from fewstep.config.run_config import RunConfig
from fewstep.devices import DTYPES
from fewstep.planning.activations import Activations, PlannedNetwork
from fewstep.planning.counts import Counts, CountsFile
from fewstep.planning.meta_networks import as_published, decoder_parameters, planned_adapter
from fewstep.planning.sizes import Spread, WeightTable
from fewstep.roles.recomputation import Recomputation
from fewstep.roles.weights import LoraWeights

STUDENT, FAKE_SCORE = "student", "fake_score"


class PlannedRoles:
    """Student, teacher and fake score without weights, and what their calls need; measured when asked for.

    Args:
        config: Decides the checkpoint, the size, the precision and which weights are trained.
        adapter: Of that checkpoint; found by its name unless given.
        counts: Of the same networks: what is there is not measured again, and what is measured is added.
    """

    def __init__(
        self, config: RunConfig, adapter: DiffusersAdapter | None = None, counts: Counts | None = None
    ) -> None:
        self.counts = counts or Counts()
        self.adapter = planned_adapter(config.backbone) if adapter is None else adapter
        self.compute = DTYPES[config.precision.compute]
        self.weights = {STUDENT: config.student.weights, FAKE_SCORE: config.fake_score.weights}
        self.factors = {role: held for role, held in self.weights.items() if isinstance(held, LoraWeights)}
        self.base_kind = next((held.base for held in self.factors.values()), "compute")
        self._file: CountsFile | None = None
        self._kept = self.counts.extent
        self._spreads: dict[tuple[bool, int], Spread] = {}
        self._trained: dict[tuple[str, int], float] = {}
        self._moments: dict[tuple[str, int, bool], float] = {}

    @classmethod
    def kept_in(cls, folder: Path, config: RunConfig) -> "PlannedRoles":
        """With what earlier plans left in a folder; :meth:`keep` adds to it what this one measures.

        Of a built-in recipe's checkpoint that was planned before, neither diffusers nor transformers is imported.
        """
        backbone, adapter, counts = config.backbone, None, Counts()
        known = as_published().get(backbone.origin) if backbone.revision is None else None
        if known is None:
            adapter = planned_adapter(backbone)
            known = adapter.components
        file = CountsFile.of(folder, config, known)
        if file is not None:
            counts = file.read()
        roles = cls(config, adapter or planned_adapter(backbone, counts.components), counts)
        roles._file, roles._kept = file, counts.extent
        counts.components = {name: dict(one) for name, one in roles.adapter.components.items()}
        return roles

    def keep(self) -> None:
        """Leave what was measured for later plans, where there is something new and a folder for it."""
        if self._file is not None and self.counts.extent != self._kept:
            self._file.write(self.counts)
            self._kept = self.counts.extent

    @cached_property
    def base(self) -> PlannedNetwork:
        """The teacher's network, with the factors of roles that train some."""
        return PlannedNetwork.frozen(self.adapter, self.factors, compute=self.compute)

    @cached_property
    def whole(self) -> PlannedNetwork:
        """A network of which every weight is trained."""
        return PlannedNetwork.trained(self.adapter, compute=self.compute)

    @property
    def base_table(self) -> WeightTable:
        """The weights of the teacher's network and of all factors."""
        tables = self.counts.tables
        if "base" not in tables:
            tables["base"] = WeightTable.of(self.base.network, self.adapter.block_classes, roles=self.factors)
        return tables["base"]

    @property
    def whole_table(self) -> WeightTable:
        """The weights of a network that is trained whole."""
        tables = self.counts.tables
        if "whole" not in tables:
            tables["whole"] = WeightTable.of(self.whole.network, self.adapter.block_classes)
        return tables["whole"]

    @property
    def flops(self) -> float:
        """Of one forward of one sample, without factors."""
        if self.counts.flops is None:
            self.counts.flops = (self.whole if not self.factors else self.base).forward_flops()
        return self.counts.flops

    @cached_property
    def prompt_bytes(self) -> float:
        """Of the embeddings of one prompt."""
        return float(sum(tensor.num_bytes(self.compute) for tensor in self.adapter.prompt_shapes().values()))

    @property
    def decoder_parameters(self) -> int:
        """Of the VAE, which draws the pictures of a sheet."""
        if self.counts.decoder is None:
            self.counts.decoder = decoder_parameters(self.adapter)
        return self.counts.decoder

    def on_base(self, role: str) -> bool:
        """Whether a role calls the teacher's network, with factors or without."""
        return role in self.factors or role not in self.weights

    def weight_bytes(self, role: str) -> float:
        """Of the whole network that a role calls, as it is while it computes."""
        return float(self._table(role).size)

    def activations(self, role: str, kind: Recomputation) -> Activations:
        """What a role's calls need; roles that train alike need the same."""
        key, measured = f"{self.weights[role]!r}, recomputing {kind}", self.counts.activations
        if key not in measured:
            network = self.base if self.on_base(role) else self.whole
            measured[key] = network.activations(kind, factors=self._only(role))
        return measured[key]

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
