"""A plan measures the networks of every family on the meta device, their gradients included."""

from pathlib import Path

import pytest
import torch

from fewstep.backbones.diffusers_adapter import DiffusersAdapter
from fewstep.planning.activations import PlannedNetwork
from fewstep.testing.case import open_case, save
from fewstep.testing.family import Family
from tests.backbones.families import FAMILIES

ONE_OF_EACH = {family.kind: family for family in FAMILIES.values()}


@pytest.mark.parametrize("family", ONE_OF_EACH.values(), ids=str)
def test_what_a_trained_network_keeps_is_measured(family: Family, tmp_path: Path) -> None:
    adapter = open_case(family, save(family, tmp_path / "teacher"), family.size).adapter
    assert isinstance(adapter, DiffusersAdapter)
    planned = PlannedNetwork.trained(adapter, compute=torch.float32)
    kept = {kind: planned.activations(kind).kept.at(2) for kind in (False, True)}
    assert kept[False] > kept[True] > 0
