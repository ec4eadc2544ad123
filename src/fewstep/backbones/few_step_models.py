"""Few-step models of others by repository id: how many steps each was distilled to.

All of them draw without guidance on the uniform grid of their own scheduler, and none of their files says so: the call
that the hub's page shows draws them with their teacher's steps and guidance.
"""

import re

FEW_STEP_MODELS = {
    "byliutao/stable-diffusion-3-medium-turbo": 4,
    "byliutao/longcat-image-turbo": 4,
    "black-forest-labs/flux.1-schnell": 4,
    "black-forest-labs/flux.2-klein-4b": 4,
    "black-forest-labs/flux.2-klein-9b": 4,
    "stabilityai/stable-diffusion-3.5-large-turbo": 4,
    "stabilityai/sdxl-turbo": 1,
    "stabilityai/sd-turbo": 1,
    "tongyi-mai/z-image-turbo": 8,
}


def few_steps(model: str) -> int | None:
    """The steps of a known few-step model, by its id, a folder OWNER/NAME or its place in the hub's cache."""
    cached = re.search(r"models--([^/]+?)--([^/]+)", model)
    owner_and_name = cached.groups() if cached else re.split(r"[/\\]+", model.rstrip("/\\"))[-2:]
    return FEW_STEP_MODELS.get("/".join(owner_and_name).lower())
