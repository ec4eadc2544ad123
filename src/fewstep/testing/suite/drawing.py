"""An adapter is right when our sampler draws what its own stock pipeline draws from the same noise."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fewstep.core.points import NoisyLatent
from fewstep.sampling import sample_latents, velocity_field
from fewstep.testing.case import LEVELS, PROMPTS, Case
from fewstep.testing.closeness import additions, assert_rounded_alike, assert_same_bits

_NEGATIVE = 'blurred, with "text" in it'


class Drawing:
    def test_sampler_equals_the_pipeline_without_guidance(self, case: Case) -> None:
        case.require_same_latents(case.ours(), case.stock())

    def test_sampler_equals_the_pipeline_with_its_guidance(self, case: Case) -> None:
        ours, stock = case.ours(guidance_scale=case.guided), case.stock(guidance_scale=case.guided)
        case.require_same_latents(ours, stock)

    def test_sampler_equals_the_pipeline_with_a_negative_prompt(self, case: Case) -> None:
        if case.adapter.guidance.embedded:
            pytest.skip("there is no branch whose place a negative prompt could take")
        ours = case.ours(guidance_scale=case.guided, negative_prompt=_NEGATIVE)
        stock = case.stock(guidance_scale=case.guided, negative_prompt=[_NEGATIVE] * len(PROMPTS))
        case.require_same_latents(ours, stock)
        case.require_other_latents(ours, case.ours(guidance_scale=case.guided))

    def test_guidance_changes_the_sample(self, case: Case) -> None:
        case.require_other_latents(case.ours(guidance_scale=case.guided), case.ours())

    def test_sampler_equals_the_pipeline_on_a_picture_that_is_not_square(self, oblong: Case) -> None:
        ours, stock = oblong.ours(guidance_scale=oblong.guided), oblong.stock(guidance_scale=oblong.guided)
        oblong.require_same_latents(ours, stock)

    def test_another_size_is_that_of_an_adapter_made_for_it(self, case: Case, oblong: Case) -> None:
        sized, levels = case.adapter.at_size(*oblong.size), torch.tensor(LEVELS)
        assert sized.latent_shape(*oblong.size) == oblong.adapter.latent_shape(*oblong.size)
        assert torch.equal(sized.to_sigma(levels), oblong.adapter.to_sigma(levels))
        cond, _ = case.conditioning()
        with torch.no_grad():
            velocity = sized.velocity(case.network, oblong.point(), cond)
        torch.testing.assert_close(velocity, oblong.velocity(oblong.network), rtol=1e-5, atol=oblong.family.tolerance)

    def test_levels_are_shifted_as_the_stock_scheduler_does(self, case: Case) -> None:
        case.stock()  # leaves the grid in the scheduler
        used = case.family.flow_sigma(case.pipeline.scheduler.sigmas[:-1].float())
        torch.testing.assert_close(case.adapter.sigmas(torch.tensor(LEVELS)), used, rtol=1e-6, atol=1e-6)

    def test_different_prompts_in_one_batch_are_drawn_as_if_alone(self, case: Case) -> None:
        noise = case.noise()
        cond, _ = case.conditioning()
        sigmas = case.adapter.sigmas(torch.tensor([1.0, 0.5]))
        both = sample_latents(velocity_field(case.adapter, case.network, cond), noise, sigmas)
        for row in range(len(PROMPTS)):
            alone = velocity_field(case.adapter, case.network, cond.rows(slice(row, row + 1)))
            case.require_same_latents(sample_latents(alone, noise[row : row + 1], sigmas), both[row : row + 1])

    def test_velocity_is_minus_the_slope_of_the_pipelines_own_step(
        self, case: Case, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One stock step from sigma to sigma - d moves x by -d velocity: the sign and scale of the velocity."""
        levels = (1.0, 0.98)
        states: list[Tensor] = []
        step = case.pipeline.scheduler.step

        def watched(*arguments: Any, **options: Any) -> Any:
            result = step(*arguments, **options)
            states.append(case.unpack(result[0].clone()))
            return result

        # not every pipeline tells its states to a callback
        monkeypatch.setattr(case.pipeline.scheduler, "step", watched)
        case.stock(levels=levels)
        first = torch.cat(states[:: len(levels)])  # of one call, or of one for each prompt
        sigma, smaller = case.adapter.sigmas(torch.tensor(levels))
        point = NoisyLatent(case.noise() * case.adapter.initial_scale, sigma.expand(len(PROMPTS)))
        velocity = case.adapter.velocity(case.network, point, case.conditioning()[0])
        slope = (case.family.flow_state(first, smaller) - point.x_sigma) / (smaller - sigma)
        # the difference of two states of size one over a step of about .01 leaves four digits
        torch.testing.assert_close(velocity, slope, rtol=1e-3, atol=1e-3)

    def test_decoding_equals_the_pipelines(self, case: Case) -> None:
        # so little noise that the pictures are of what the pipeline is given, in the range that a VAE has
        noise, levels = 0.3 * case.noise(), (0.004, 0.002)
        latents = case.unpack(case.call(noise, levels=levels))
        stock = case.call(noise, levels=levels, output_type="pt")
        torch.testing.assert_close(case.adapter.decode(case.pipeline.vae, latents), stock, rtol=1e-6, atol=1e-5)
        assert float(stock.std()) > 1e-3, "nothing is in the pictures"

    def test_vae_loaded_alone_decodes_the_same(self, case: Case) -> None:
        latents = 0.3 * case.noise()
        alone, whole = case.adapter.load_vae(), case.pipeline.vae
        assert_same_bits(alone.state_dict(), whole.state_dict())
        pixels, expected = case.adapter.decode(alone, latents), case.adapter.decode(whole, latents)
        assert_rounded_alike(pixels, expected, terms=additions(alone))
