import torch

from fewstep.core import flow
from fewstep.core.points import NoisyLatent, extrapolate, renoise


def test_an_off_trajectory_point_lies_on_the_straight_path_of_its_pair() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(3, 4, generator=generator), torch.randn(3, 4, generator=generator)
    sigma, elsewhere = torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.2, 0.8, 0.6])
    anchor = NoisyLatent(flow.interpolate(x0, noise, sigma), sigma)
    moved = extrapolate(anchor, flow.velocity_from(x0, noise), sigma=elsewhere)
    torch.testing.assert_close(moved.x_sigma, flow.interpolate(x0, noise, elsewhere))
    assert torch.equal(moved.sigma, elsewhere)


def test_a_probe_has_the_variance_of_its_noise_level() -> None:
    generator = torch.Generator().manual_seed(0)
    probe = renoise(
        torch.zeros(2, 100_000), sigma=torch.tensor([0.3, 0.9]), noise=torch.randn(2, 100_000, generator=generator)
    )
    torch.testing.assert_close(probe.x_sigma.std(dim=1), torch.tensor([0.3, 0.9]), atol=0.01, rtol=0)


def test_rows_keep_each_latent_with_its_own_sigma() -> None:
    point = NoisyLatent(torch.arange(3.0)[:, None], torch.tensor([0.1, 0.2, 0.3]))
    chosen = point.rows(torch.tensor([2, 0]))
    assert chosen.x_sigma[:, 0].tolist() == [2.0, 0.0]
    torch.testing.assert_close(chosen.sigma, torch.tensor([0.3, 0.1]))
