"""Two steps of the whole of CDM, and of intra-segment guidance with it, through the one training loop."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from fewstep.data.embeddings import open_or_build
from fewstep.distributed.world import alone
from fewstep.roles.build import RoleSettings, build_roles
from fewstep.roles.role import Roles
from fewstep.testing.case import PROMPTS, Case
from fewstep.testing.suite.gradients import declared, require_gradients_as_declared
from fewstep.training.trainer import StepReport, Trainer


@dataclass
class _Trained:
    """A finished run of two steps, each of which updated the fake score and the student.

    Attributes:
        gradients: The last gradient of every parameter that received one, by role.
    """

    roles: Roles
    start: dict[str, Tensor]
    reports: list[StepReport] = field(default_factory=list)
    gradients: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def changed(self, role: str) -> set[str]:
        network: nn.Module = getattr(self.roles, role).network
        return {name for name, value in network.named_parameters() if not torch.equal(value.detach(), self.start[name])}


class TwoSteps:
    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, case: Case, tmp_path_factory: pytest.TempPathFactory) -> _Trained:
        device = torch.device("cpu")
        embeddings = open_or_build(tmp_path_factory.mktemp("run") / "cache", case.adapter, PROMPTS)
        roles = build_roles(case.adapter, RoleSettings(checkpointing=True), alone(device))
        start = {name: value.detach().clone() for name, value in roles.teacher.network.named_parameters()}
        trainer = Trainer(case.run_config(), case.adapter, roles, embeddings, device)
        done = _Trained(roles, start)
        done.gradients = {role: _watch(getattr(roles, role).network) for role in ("student", "fake_score")}
        done.reports = [trainer.run_step(), trainer.run_step()]
        return done

    def test_every_step_updates_the_student_and_measures_every_term(self, trained: _Trained) -> None:
        assert all(report.student_updated for report in trained.reports)
        losses = {name for report in trained.reports for name in report.figures if name.startswith("loss/")}
        everywhere = {"loss/dm", "loss/cdm", "loss/isg", "loss/dp", "loss/fake_score"}
        assert {"loss/ca", *everywhere} >= losses >= everywhere

    def test_the_teacher_does_not_change(self, trained: _Trained) -> None:
        assert trained.changed("teacher") == set()

    @pytest.mark.parametrize("role", ["student", "fake_score"])
    def test_everything_that_can_train_changes(self, case: Case, trained: _Trained, role: str) -> None:
        assert trained.changed(role) >= trained.start.keys() - declared(case)

    @pytest.mark.parametrize("role", ["student", "fake_score"])
    def test_gradients_are_finite_and_reach_all_but_what_is_declared(
        self, case: Case, trained: _Trained, role: str
    ) -> None:
        found = trained.gradients[role]
        assert all(bool(gradient.isfinite().all()) for gradient in found.values())
        require_gradients_as_declared(case, found)


def _watch(network: nn.Module) -> dict[str, Tensor]:
    """A dictionary that fills with gradients as they arrive."""
    seen: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():

        def keep(value: Tensor, name: str = name) -> None:
            assert value.grad is not None
            seen[name] = value.grad.clone()

        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(keep)  # type: ignore[no-untyped-call]
    return seen
