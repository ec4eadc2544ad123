"""Sampling: noise by name, an Euler loop, and pictures."""

from fewstep.sampling.drawing import sample
from fewstep.sampling.loaded import TextToImage, load_model
from fewstep.sampling.request import Drawing
from fewstep.sampling.sampler import noise_batch, noise_for, sample_latents, teacher_sigmas, velocity_field

__all__ = [
    "Drawing",
    "TextToImage",
    "load_model",
    "noise_batch",
    "noise_for",
    "sample",
    "sample_latents",
    "teacher_sigmas",
    "velocity_field",
]
