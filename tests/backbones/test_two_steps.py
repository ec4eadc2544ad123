"""Two steps of the whole of CDM, and of intra-segment guidance with it, through the one training loop, everywhere."""

import fnmatch
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewstep.config.run_config import RunConfig
from fewstep.data.embeddings import open_or_build
from fewstep.distributed.world import alone
from fewstep.roles.build import RoleSettings, build_roles
from fewstep.roles.role import Roles
from fewstep.training.trainer import StepReport, Trainer
from tests.backbones.families import FAMILIES
from tests.backbones.test_conformance import PROMPTS, Case, open_case


@dataclass
class TwoSteps:
    """A finished run of two steps, each of which updated the fake score and the student.

    Attributes:
        gradients: The last gradient of every parameter that received one, by role.
    """

    case: Case
    roles: Roles
    start: dict[str, Tensor]
    reports: list[StepReport] = field(default_factory=list)
    gradients: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def declared(self) -> set[str]:
        """Parameters that the adapter says never receive a gradient."""
        rules = self.case.adapter.never_trained
        return {name for name in self.start if any(fnmatch.fnmatch(name, rule) for rule in rules)}

    def changed(self, role: str) -> set[str]:
        network: nn.Module = getattr(self.roles, role).network
        return {name for name, value in network.named_parameters() if not torch.equal(value.detach(), self.start[name])}


def run_config(case: Case) -> RunConfig:
    adapter = case.adapter
    # half the margin of SD3.5: the first segment of PixArt's grid is .0485 wide
    terms: dict[str, Any] = {"ca": {"scale": 2.0}, "dm": {}, "cdm": {}, "isg": {"margin": 0.02}}
    if adapter.config.without_guidance() is not None:
        del terms["ca"]
    return RunConfig.model_validate(
        {
            "backbone": adapter.config.model_dump(mode="json"),
            "prompts": {"kind": "file", "path": "not-read.txt"},
            "schedule": {"kind": "random_length", "min_steps": 1, "max_steps": 3},
            "terms": terms,
            "student": {"lr": 1e-3, "every": 1, "warmup": 0},
            "fake_score": {"lr": 1e-3, "warmup": 0},
            "batch": 2,
            "budget": {"student_updates": 2},
            "precision": {"compute": "fp32"},
        }
    )


def watch(network: nn.Module) -> dict[str, Tensor]:
    """A dictionary that fills with gradients as they arrive."""
    seen: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():

        def keep(value: Tensor, name: str = name) -> None:
            assert value.grad is not None
            seen[name] = value.grad.clone()

        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(keep)
    return seen


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TwoSteps:
    family = FAMILIES[request.param]
    root: Path = tmp_path_factory.mktemp("run")
    family.build().save_pretrained(root / "teacher")
    case = open_case(family, root / "teacher", family.size)
    config = run_config(case)
    device = torch.device("cpu")
    embeddings = open_or_build(root / "cache", case.adapter, PROMPTS)
    roles = build_roles(case.adapter, RoleSettings(checkpointing=True), alone(device))
    start = {name: value.detach().clone() for name, value in roles.teacher.network.named_parameters()}
    trainer = Trainer(config, case.adapter, roles, embeddings, device)
    done = TwoSteps(case, roles, start)
    done.gradients = {role: watch(getattr(roles, role).network) for role in ("student", "fake_score")}
    done.reports = [trainer.run_step(), trainer.run_step()]
    return done


def test_every_step_updates_the_student_and_measures_every_term(trained: TwoSteps) -> None:
    assert all(report.student_updated for report in trained.reports)
    losses = {name for report in trained.reports for name in report.figures if name.startswith("loss/")}
    everywhere = {"loss/dm", "loss/cdm", "loss/isg", "loss/fake_score"}
    assert {"loss/ca", *everywhere} >= losses >= everywhere


def test_the_teacher_does_not_change(trained: TwoSteps) -> None:
    assert trained.changed("teacher") == set()


@pytest.mark.parametrize("role", ["student", "fake_score"])
def test_everything_that_can_train_changes(trained: TwoSteps, role: str) -> None:
    assert trained.changed(role) >= trained.start.keys() - trained.declared()


@pytest.mark.parametrize("role", ["student", "fake_score"])
def test_gradients_are_finite_and_reach_all_but_what_is_declared(trained: TwoSteps, role: str) -> None:
    found = trained.gradients[role]
    assert all(bool(gradient.isfinite().all()) for gradient in found.values())
    reached = {name for name, gradient in found.items() if bool(gradient.any())}
    assert reached == trained.start.keys() - trained.declared()
