"""The machine: what computes, how attention is computed there, and the folders that are written to."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from fewstep.devices import cpu_multiplies_bf16, fastest_device
from fewstep.doctor.line import Line
from fewstep.files import disk_reason

_KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "plain": SDPBackend.MATH,
}
_BF16 = {
    True: "products in hardware, faster than fp32",
    False: "works there, slower than fp32",
    None: "works there; whether it is faster than fp32, torch does not know",
}
_ROOM = 20 * 2**30
"""Less free space is worth a word: about as much as a teacher of 2 billion parameters takes, with its encoders."""


def devices() -> Iterator[Line]:
    """What PyTorch finds to compute on, the fastest first."""
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        yield Line(
            f"cuda:{index}",
            f"{about.name}, {total / 2**30:.1f} GiB, {free / 2**30:.1f} of them free, {'' if bf16 else 'no '}bf16",
            None if bf16 else "recipes of real teachers compute in bf16; set precision.compute=fp32",
        )
    if torch.backends.mps.is_available():
        yield Line("mps", "Apple's GPU, which shares the memory of the machine")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Line("cpu", f"{os.cpu_count()} processors, {memory / 2**30:.1f} GiB; bf16 {_BF16[cpu_multiplies_bf16()]}")
    if fastest_device() == "cpu":
        yield _without_gpu()


def _without_gpu() -> Line:
    if torch.version.cuda is not None:
        found = f"none, though PyTorch is built for CUDA {torch.version.cuda}"
        return Line("gpu", found, "install or update the driver; nvidia-smi has to list the GPU")
    if shutil.which("nvidia-smi") is not None:
        found = "PyTorch is a build for the CPU, and this machine has an NVIDIA driver"
        return Line("gpu", found, "install a CUDA build of torch, as pytorch.org says")
    found = "none; the CPU does for digits and the demo, not for teachers of billions of parameters"
    return Line("gpu", found, "use a machine that has one; `fewstep plan RECIPE` says how large")


def attention() -> Line:
    """Which kernels of PyTorch answer on the fastest device; fewstep uses no others."""
    device = fastest_device()
    answering = [name for name, kernel in _KERNELS.items() if _answers(kernel, device)]
    only_plain = device != "cpu" and answering in ([], ["plain"])
    return Line(
        "attention",
        f"{', '.join(answering)} of PyTorch on {device}",
        "install a newer PyTorch: without the other kernels, memory grows with the square of the tokens"
        if only_plain
        else None,
    )


def _answers(kernel: SDPBackend, device: str) -> bool:
    query = torch.ones(1, 2, 64, 64, device=device, dtype=torch.bfloat16)
    try:
        with sdpa_kernel(kernel):
            scaled_dot_product_attention(query, query, query).sum().item()
    except RuntimeError:
        return False
    return True


def folder(about: str, path: Path, *, elsewhere: str) -> Line:
    """Whether a folder that may not be there yet can be written to, by writing a file that has no name.

    Args:
        about: What it is for.
        path: The folder.
        elsewhere: How to have it in another place.
    """
    there = path.absolute()
    while not os.path.lexists(there):
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there) as written:
            written.write(b"\0" * 2**16)
            written.flush()
        free = shutil.disk_usage(there).free
    except OSError as error:
        reason = disk_reason(error)
        if reason is None:
            raise
        return Line(about, f"{path} cannot be written to: {reason.partition('. ')[0]}", elsewhere, broken=True)
    found = f"{path}, {free / 2**30:.1f} GiB free"
    return Line(about, found, None if free >= _ROOM else f"free some space, or {elsewhere}")
