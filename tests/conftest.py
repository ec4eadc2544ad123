"""Every test runs offline and on one thread, so that numbers repeat and no test waits for a network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

import torch
from hypothesis import settings
from jaxtyping import install_import_hook

torch.set_num_threads(1)
# random cases are the same on every machine, and shared machines have no reliable clock
settings.register_profile("fewstep", deadline=None, derandomize=True)
settings.load_profile("fewstep")
# the shapes in the signatures are checked here and cost nothing elsewhere
install_import_hook(["fewstep.core", "fewstep.methods"], "beartype.beartype")
