"""Where and how tensors are computed: devices, random generators, precision, frozen models."""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from fmlib.core.errors import FmlibError


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is CUDA, else Apple's MPS, else the CPU.

    Raises `FmlibError` if the device is unknown or not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ImportError, NotImplementedError) as error:
        raise FmlibError(f"device {name!r} cannot be used here: choose auto, cpu, cuda or mps") from error
    return device


def _number(seed: int, purpose: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:7], "big")


def generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A random generator of its own for one purpose: the same seed and purpose give the same draws."""
    return torch.Generator(device=device).manual_seed(_number(seed, purpose))


@contextmanager
def global_rng(seed: int, purpose: str) -> Iterator[None]:
    """Seed torch's global generators within the block, and put them back after it.

    For draws inside libraries that take no generator: weight initialisation, dropout, torchattacks.
    """
    with torch.random.fork_rng():
        torch.manual_seed(_number(seed, purpose))
        yield


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode with no parameter asking for a gradient; left as it was found.

    Restores every module's training flag, every parameter's `requires_grad` and its gradient.
    """
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: (parameter.requires_grad, parameter.grad) for parameter in model.parameters()}
    for parameter in flags:  # gradients made within the block must not add to those that are put back
        parameter.grad = None
    try:
        model.eval()
        for parameter in flags:
            parameter.requires_grad_(False)
        yield model
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, (flag, grad) in flags.items():
            parameter.requires_grad_(flag)
            parameter.grad = grad


def one_cycle(optimizer: torch.optim.Optimizer, lr: float, steps: int, warmup: float = 0.3) -> OneCycleLR:
    """A one-cycle rate over `steps` steps, at its maximum `lr` after a share `warmup` of them (Smith, 2017).

    A cycle of fewer than four steps is cut from one of four: torch's schedule divides by the warm-up's length.
    """
    steps = max(steps, 4)
    return OneCycleLR(optimizer, max_lr=lr, total_steps=steps, pct_start=max(warmup, 2 / steps))


#: Kinds of devices on which networks run in bfloat16; the command line adds "cpu" where it is told to.
BFLOAT16 = {"cuda"}


def mixed_precision(device: torch.device) -> AbstractContextManager:
    """Autocast to bfloat16 on the devices in `BFLOAT16`, but not on a CUDA device that only imitates it, as a T4."""
    able = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, dtype=torch.bfloat16) if device.type in BFLOAT16 and able else nullcontext()


@contextmanager
def full_precision() -> Iterator[None]:
    """Networks run in full precision within the block, on every device (on CUDA, by torch's default, in TF32)."""
    reduced = set(BFLOAT16)
    BFLOAT16.clear()
    try:
        yield
    finally:
        BFLOAT16.update(reduced)


def memory_budget(device: torch.device, weights: int) -> int:
    """Bytes that the intermediate results of a step may take, beside so many of weights.

    On CUDA half of the memory that is free. Elsewhere 64 MiB, beyond which larger batches were no faster on two cores,
    or as much as the weights: each step reads them all, and with 3 images at a time VGG11 takes three times as long as
    with 24.
    """
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (torch.cuda.mem_get_info(device)[0] + held) // 2
    return max(64 * 2**20, weights)


@cache
def keep_freed_memory() -> None:
    """Let the process keep the memory that it frees, for the next step, where its C library is glibc.

    By default glibc hands large blocks back to the system at once, and every step waits for fresh pages: at 64 px and
    128 images a step takes 1.4 times as long, at 128 px twice as long.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD: only blocks beyond a GiB are of their own
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: nothing is handed back


class Checkpoint(Protocol):
    """Where a long computation keeps its state between kills."""

    def load(self) -> dict[str, Any] | None:
        """The state last saved, or None."""

    def due(self) -> bool:
        """Whether it is time to save again."""

    def save(self, state: dict[str, Any]) -> None:
        """Keep this state in place of the last."""
