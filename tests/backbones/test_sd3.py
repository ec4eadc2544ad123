"""What is particular to Stable Diffusion 3."""

import re
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from pydantic import ValidationError
from torch import Tensor, nn

from fewstep.backbones.configurations import complete
from fewstep.backbones.sd3 import SD3Adapter
from fewstep.config import load_recipe
from fewstep.core.conditioning import Conditioning
from fewstep.core.points import NoisyLatent
from fewstep.errors import ConfigError
from fewstep.methods.isg import segment_grid
from fewstep.sampling import teacher_sigmas
from fewstep.training.noise_levels import require_fitting_levels
from tests.backbones.families import REAL_CONFIGURATIONS
from tests.backbones.pages import FOLDER, PAGES


def adapter_of(name: str = "sd3-medium", *, scheduler: dict[str, Any] | None = None, **config: Any) -> SD3Adapter:
    components = dict(REAL_CONFIGURATIONS[name].components)
    if scheduler is not None:
        components["scheduler"] = complete(
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, **scheduler}, place="a file"
        )
    return SD3Adapter(SD3Adapter.config_class(model=name, **config), components)


class Recorder(nn.Module):
    """Answers zero and remembers what it was asked."""

    def forward(self, **arguments: Any) -> tuple[Tensor]:
        self.arguments = arguments
        return (torch.zeros_like(arguments["hidden_states"]),)


def test_four_steps_of_sd3() -> None:
    sigmas = adapter_of().to_sigma(torch.tensor([1.0, 0.75, 0.5, 0.25]))
    torch.testing.assert_close(sigmas, torch.tensor([1.0, 0.9, 0.75, 0.5]))


def test_dynamic_shift_grows_with_the_picture() -> None:
    dynamic = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    levels = torch.tensor([1.0, 0.75, 0.5, 0.25])
    large = adapter_of(scheduler=dynamic).to_sigma(levels)
    small = adapter_of(scheduler=dynamic, height=512, width=512).to_sigma(levels)
    # the published grids at 1024 px (mu 1.15) and 512 px (mu .63)
    torch.testing.assert_close(large, torch.tensor([1.0, 0.9045, 0.7595, 0.5128]), rtol=0, atol=5e-5)
    torch.testing.assert_close(small, torch.tensor([1.0, 0.8492, 0.6525, 0.3849]), rtol=0, atol=5e-5)


def test_time_stays_float32_under_bfloat16() -> None:
    adapter, network = adapter_of(), Recorder()
    adapter.compute_dtype = torch.bfloat16
    cond = Conditioning({"prompt_embeds": torch.zeros(1, 2, 4), "pooled_prompt_embeds": torch.zeros(1, 4)})
    velocity = adapter.velocity(network, NoisyLatent(torch.zeros(1, 16, 2, 2), torch.tensor([0.999])), cond)
    asked = network.arguments
    assert torch.equal(asked["timestep"], 1000 * torch.tensor([0.999]))
    assert asked["hidden_states"].dtype == asked["encoder_hidden_states"].dtype == torch.bfloat16
    assert asked["pooled_projections"].dtype == torch.bfloat16
    assert velocity.dtype == torch.float32


def test_lora_reaches_the_second_attention_of_dual_attention_models_only() -> None:
    assert "attn2.to_q" in adapter_of("sd35-medium").lora_targets
    assert not any(target.startswith("attn2") for target in adapter_of("sd35-large").lora_targets)


def test_latent_of_a_1024_pixel_picture() -> None:
    assert adapter_of().latent_shape(1024, 512) == (16, 128, 64)


def test_size_that_is_no_multiple_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"1000 x 1024 pixels do not fit sd3-medium.*multiples of 16.*992 x 1024"):
        adapter_of(height=1000)


def test_size_beyond_the_position_table_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"4096 x 1024 pixels are too large for sd3-medium.*ends at 3072 pixels"):
        adapter_of(height=4096)


def test_scheduler_that_bends_the_grid_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"scheduler of sd3-medium sets use_karras_sigmas=True, which moves"):
        adapter_of(scheduler={"use_karras_sigmas": True})


@pytest.mark.parametrize("steps", [2, 4, 50])
def test_terminal_shift_moves_a_grid_as_the_stock_scheduler_does(steps: int) -> None:
    adapter = adapter_of(scheduler={"shift_terminal": 0.02})
    stock = FlowMatchEulerDiscreteScheduler(shift=3.0, shift_terminal=0.02)
    stock.set_timesteps(sigmas=torch.linspace(1.0, 1.0 / steps, steps).tolist())
    torch.testing.assert_close(teacher_sigmas(adapter, steps), stock.sigmas[:-1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(adapter.to_sigma(torch.tensor([0.5])), torch.tensor([0.75]))


def test_grid_of_one_step_that_the_terminal_shift_breaks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"noise levels \[nan\] of 1 steps, which do not descend; draw with another"):
        teacher_sigmas(adapter_of(scheduler={"shift_terminal": 0.02}), 1)


def test_scheduler_of_another_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="ships with the scheduler DPMSolverMultistepScheduler; this backbone knows"):
        adapter_of(scheduler={"_class_name": "DPMSolverMultistepScheduler"})


def test_student_scheduler_takes_sigmas_as_they_are() -> None:
    scheduler = adapter_of(scheduler={"use_dynamic_shifting": True}).student_scheduler([1.0])
    scheduler.set_timesteps(sigmas=[1.0, 0.9, 0.7, 0.4], mu=1.15)
    torch.testing.assert_close(scheduler.sigmas, torch.tensor([1.0, 0.9, 0.7, 0.4, 0.0]), rtol=0, atol=0)


def test_longer_text_than_the_pipeline_allows_is_refused() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 512"):
        SD3Adapter.config_class(model="m", max_sequence_length=513)


def test_recipes_of_35_align_as_senseflow_does_with_their_model() -> None:
    aligned = {name: load_recipe(name).config.fake_score.align for name in ("sd3-medium", "sd35-medium", "sd35-large")}
    assert {name: (align.decay, align.after) for name, align in aligned.items() if align is not None} == {
        "sd3-medium": (0.999, "fake_score"),
        "sd35-medium": (0.98, "student"),
        "sd35-large": (0.97, "student"),
    }


def test_large_has_intra_segment_guidance_that_fits_its_grid() -> None:
    config = load_recipe("sd35-large").config
    isg = config.terms.isg
    assert isg is not None
    assert (isg.weight, isg.margin, isg.guidance.low, isg.guidance.high) == (1.0, 0.05, 5.0, 5.0)
    require_fitting_levels(config, adapter_of("sd35-large"))
    assert segment_grid(isg, adapter_of("sd35-large").to_sigma).tolist() == pytest.approx([1.0, 0.9, 0.75, 0.5, 0.0])


def test_line_of_the_page_switches_it_on_for_medium() -> None:
    page = (FOLDER / PAGES["sd3"]).read_text(encoding="utf-8")
    line = re.findall(r"`(terms\.isg=)'(.*)'`", page)
    assert len(line) == 1
    isg = load_recipe("sd35-medium", ["".join(line[0])]).config.terms.isg
    assert isg is not None
    assert (isg.weight, isg.guidance.low, isg.guidance.high) == (0.5, 2.0, 4.0)
    assert load_recipe("sd35-medium").config.terms.isg is None
