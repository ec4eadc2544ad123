"""One complete published iteration: fake-score update, IDA, student update, EMA, from recorded draws."""

import json
from functools import cache

import torch
from diffusers import SD3Transformer2DModel
from safetensors.torch import load_file
from torch import Tensor

from fewstep.backbones.sd3 import SD3Adapter
from fewstep.config.recipe import validate
from fewstep.config.run_config import RunConfig
from fewstep.core.conditioning import Conditioning
from fewstep.methods.draws import Draws, TermDraws
from fewstep.roles.role import Role, Roles
from fewstep.testing.closeness import UNIT
from fewstep.training.trainer import StepReport, Trainer
from tests.backbones import tiny
from tests.golden import FOLDER, arrays, record

OPTIMISER = {"warmup": 0, "weight_decay": 1e-4, "clip": 1.0}


def stored() -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in arrays("iter_default").items()}


def settings() -> RunConfig:
    return validate(
        {
            "backbone": {"kind": "sd3", "model": "recorded", "height": 64, "width": 64},
            "prompts": {"kind": "demo"},
            "schedule": {"kind": "random_length", "min_steps": 5, "max_steps": 5},
            "terms": {"ca": {"scale": 7.0}, "dm": {}, "cdm": {}},
            "student": {"lr": 1e-3, "every": 1, "ema": 0.999, **OPTIMISER},
            "fake_score": {"lr": 5e-4, "align": {"decay": 0.999, "after": "fake_score"}, **OPTIMISER},
            "batch": 4,
            "budget": {"student_updates": 1},
            "precision": {"compute": "fp32"},
            "memory": {"gradient_checkpointing": False},
        }
    )


def adapter() -> SD3Adapter:
    components = {
        "scheduler": json.loads((FOLDER / "weights" / "scheduler_config.json").read_text()),
        "transformer": json.loads((FOLDER / "weights" / "transformer_config.json").read_text()),
        "vae": {"_class_name": "AutoencoderKL", "block_out_channels": [8, 8, 8, 8]},
        "model_index": {},
    }
    whole = tiny.whole(components, "SD3Transformer2DModel")
    return SD3Adapter(SD3Adapter.config_class(model="recorded", height=64, width=64), whole)


def network(name: str) -> SD3Transformer2DModel:
    built = SD3Transformer2DModel.from_config(
        json.loads((FOLDER / "weights" / "transformer_config.json").read_text())
    ).eval()
    built.load_state_dict(load_file(FOLDER / "weights" / f"{name}.safetensors"))
    return built


class RecordedEmbeddings:
    """The recorded text inputs, whatever is asked for."""

    def __len__(self) -> int:
        return 4

    def batch(self, indices: object) -> Conditioning:
        data = stored()
        return Conditioning(
            {"prompt_embeds": data["prompt_embeds"], "pooled_prompt_embeds": data["pooled_prompt_embeds"]}
        )

    @property
    def null(self) -> Conditioning:
        data = stored()
        return Conditioning(
            {"prompt_embeds": data["neg_prompt_embeds"][:1], "pooled_prompt_embeds": data["neg_pooled"][:1]}
        )


def recorded_draws(step: int, positions: range, with_terms: bool) -> Draws:
    data = stored()
    raw = torch.tensor(record("iter_default")["raw_sigmas"])
    anchor_sigma = data["sched_sigmas"][data["randint"]]

    def term(probe_u: Tensor, noise: str, query_u: Tensor | None = None) -> TermDraws:
        return TermDraws(torch.zeros(4) if query_u is None else query_u, None, probe_u, data[noise])

    return Draws(
        initial_noise=data["x_T"],
        inner_u=((raw[1:] - 0.25) / 0.7).expand(4, -1),
        anchor=tuple(data["randint"].tolist()),
        num_simulation_calls=int(data["randint"].max()),
        denoising_u=data["sample_sigmas"],
        denoising_noise=data["randn_like"],
        terms={
            "ca": term(data["sample_sigmas_1"] / anchor_sigma, "randn_like_1"),
            "dm": term(data["sample_sigmas_2"], "randn_like_2"),
            "cdm": term(data["sample_sigmas_4"], "randn_like_3", query_u=data["sample_sigmas_3"]),
        },
    )


@cache
def iteration() -> tuple[Trainer, StepReport, dict[str, dict[str, Tensor]]]:
    """Run the iteration once; gradients are caught where the optimisers read them, before clipping."""
    our_adapter = adapter()
    roles = Roles(
        student=Role(network("student"), our_adapter),
        teacher=Role(network("real_teacher").requires_grad_(False), our_adapter),
        fake_score=Role(network("fake_teacher"), our_adapter),
    )
    trainer = Trainer(settings(), our_adapter, roles, RecordedEmbeddings(), torch.device("cpu"), draw=recorded_draws)
    caught: dict[str, dict[str, Tensor]] = {"student": {}, "fake": {}}
    for role, owner in (("student", roles.student), ("fake", roles.fake_score)):
        for name, parameter in owner.network.named_parameters():

            def catch(leaf: Tensor, role: str = role, name: str = name) -> None:
                assert leaf.grad is not None
                caught[role][name] = leaf.grad.clone()

            parameter.register_post_accumulate_grad_hook(catch)
    return trainer, trainer.run_step(), caught


def test_the_recorded_losses_are_reproduced() -> None:
    _, report, _ = iteration()
    data = stored()
    for ours, theirs in (("fake_score", "ft"), ("ca", "cfg"), ("dm", "ddm"), ("cdm", "cdm")):
        expected = data[f"{theirs}.loss"].item()
        assert abs(report.figures[f"loss/{ours}"] - expected) <= 1e-4 * abs(expected), ours


def test_the_recorded_gradients_are_reproduced() -> None:
    _, report, caught = iteration()
    data, info = stored(), record("iter_default")
    compared = 0
    for role in ("student", "fake"):
        for name, gradient in caught[role].items():
            expected = data.get(f"grad_total.{role}.{name}")
            if expected is not None:
                assert (gradient - expected).norm() / expected.norm() <= 1e-5, (role, name)
                compared += 1
            total = info[f"grad_norms.{role}"][name]
            assert abs(gradient.norm().item() - total) <= 1e-4 * total + 1e-7, (role, name)
    assert compared == 20
    assert abs(report.figures["grad_norm/student"] - info["grad_norm_total.student"]) < 1e-5
    assert abs(report.figures["grad_norm/fake_score"] - info["grad_norm_total.fake"]) < 1e-5


GRADIENT = 1e-5  # of a tensor's norm: what another order of the additions moves a gradient by, as a vector
NORM = 0.45  # of all gradients of one role together, as recorded


def assert_first_step(
    actual: Tensor, expected: Tensor, start: Tensor, gradient: Tensor, *, lr: float, keep: float, towards: Tensor
) -> None:
    """Both weights are AdamW's first step from a gradient near ours, averaged with ``towards``.

    The first step is lr g / (|g| + 1e-8): where the gradient is nearly zero, its rounding decides the sign of a step
    of full size. So a weight is judged by the gradients that it can come from. The step is monotone in the gradient,
    hence the weight lies between the steps of the smallest and of the largest one.
    """
    # a gradient that cancels, as of a key's bias, is nothing but the rounding of larger ones; one of no input is zero
    near = GRADIENT * gradient.norm() + UNIT * NORM if gradient.any() else torch.zeros(())
    decayed = start * (1 - lr * OPTIMISER["weight_decay"])

    def after(g: Tensor) -> Tensor:
        return keep * (decayed - lr * g / (g.abs() + 1e-8)) + (1 - keep) * towards

    highest, lowest = after(gradient - near), after(gradient + near)
    few_roundings = 4 * UNIT * (start.abs() + towards.abs() + lr)
    for weight in (actual, expected):
        assert bool(((lowest - few_roundings <= weight) & (weight <= highest + few_roundings)).all())
    # nearly all weights of a large matrix are settled by that, to a tenth of a step
    assert gradient.numel() < 1000 or float((highest - lowest > 0.1 * lr).double().mean()) < 0.1


def test_the_recorded_fake_score_after_alignment_is_reproduced() -> None:
    trainer, _, caught = iteration()
    expected = load_file(FOLDER / "iter_default.fake_after_merge.safetensors")
    parameters = dict(trainer.roles.fake_score.network.named_parameters())
    assert set(expected) == set(parameters)
    start, student = (dict(network(name).named_parameters()) for name in ("fake_teacher", "student"))
    for name, value in expected.items():
        # the alignment is towards the student before its own update, as recorded
        assert_first_step(
            *(parameters[name].detach(), value, start[name].detach(), caught["fake"][name]),
            **{"lr": 5e-4, "keep": 0.999, "towards": student[name].detach()},
        )


def test_the_recorded_student_and_its_average_are_reproduced() -> None:
    trainer, _, caught = iteration()
    data = stored()
    parameters, average = trainer.student_weights(), trainer.export_weights()
    start = dict(network("student").named_parameters())
    names = [key.removeprefix("student_after_opt.") for key in data if key.startswith("student_after_opt.")]
    assert len(names) == 10
    for name in names:
        begun, gradient = start[name].detach(), caught["student"][name]
        after, averaged = data[f"student_after_opt.{name}"], data[f"ema_after.{name}"]
        assert_first_step(parameters[name].detach(), after, begun, gradient, lr=1e-3, keep=1.0, towards=begun)
        # the average keeps 2/11 of where it began
        assert_first_step(average[name], averaged, begun, gradient, lr=1e-3, keep=9 / 11, towards=begun)
