"""Sampling: noise by name, an Euler loop, and pictures."""

from fewstep.sampling.generate import TextToImage, load_model, sample
from fewstep.sampling.sampler import noise_batch, noise_for, sample_latents, teacher_sigmas, velocity_field

__all__ = [
    "TextToImage",
    "load_model",
    "noise_batch",
    "noise_for",
    "sample",
    "sample_latents",
    "teacher_sigmas",
    "velocity_field",
]
