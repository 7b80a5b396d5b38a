"""Where and how tensors are computed: devices, random generators, precision, memory, frozen models, checkpoints."""

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
    """The device called `name`; "auto" is CUDA if available, else Apple's MPS, else the CPU.

    Raises `FmlibError` for a device that is unknown or not available.
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


def _derived(seed: int, purpose: str) -> int:
    """The seed of one purpose's generator."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:7], "big")


def generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A random generator for one purpose: the same seed and purpose give the same numbers."""
    return torch.Generator(device=device).manual_seed(_derived(seed, purpose))


@contextmanager
def global_rng(seed: int, purpose: str) -> Iterator[None]:
    """Seed torch's global generators within the block, and restore their states after it.

    For code that takes no generator: weight initialisation, dropout, torchattacks.
    """
    with torch.random.fork_rng():
        torch.manual_seed(_derived(seed, purpose))
        yield


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode, without gradients for its parameters, within the block.

    Restores the training flag of each module, and `requires_grad` and the gradient of each parameter.
    """
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: (parameter.requires_grad, parameter.grad) for parameter in model.parameters()}
    for parameter in flags:  # gradients of the block must not accumulate into the restored ones
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
    """A one-cycle learning rate over `steps` steps, with its maximum `lr` after a share `warmup` of them (Smith, 2017).

    Fewer than four steps are the start of a schedule of four, because torch divides by the length of the warm-up.
    """
    steps = max(steps, 4)
    return OneCycleLR(optimizer, max_lr=lr, total_steps=steps, pct_start=max(warmup, 2 / steps))


#: Types of devices on which networks run in bfloat16; the command line can add "cpu".
BFLOAT16 = {"cuda"}


def precision(device: torch.device) -> str:
    """What networks run in: "bfloat16" on the devices in `BFLOAT16`, except CUDA devices that only emulate it (T4)."""
    native = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if device.type in BFLOAT16 and native else "float32"


def mixed_precision(device: torch.device) -> AbstractContextManager:
    """Autocast to bfloat16 on the devices whose `precision` it is."""
    reduced = precision(device) == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16) if reduced else nullcontext()


@contextmanager
def full_precision() -> Iterator[None]:
    """Run networks in full precision within the block, on every device (on CUDA, torch's default is TF32)."""
    reduced = set(BFLOAT16)
    BFLOAT16.clear()
    try:
        yield
    finally:
        BFLOAT16.update(reduced)


def memory_budget(device: torch.device, weights: int) -> int:
    """Bytes available for the intermediate results of a step of a network with `weights` bytes of parameters.

    On CUDA this is half of the free memory. Elsewhere it is 64 MiB, beyond which larger batches were no faster on two
    cores, or the size of the weights if that is larger: each step reads all weights, and with batches of 3 images VGG11
    takes three times as long as with batches of 24.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (torch.cuda.mem_get_info(device)[0] + cached) // 2
    return max(64 * 2**20, weights)


@cache
def keep_freed_memory() -> None:
    """Let the process keep freed memory for the next step, if its C library is glibc.

    By default glibc returns large blocks to the system at once, and each step waits for new pages: with 128 images a
    training step takes 1.4 times as long at 64 px and twice as long at 128 px.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD: only blocks above 1 GiB are mapped separately
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: nothing is returned


class Checkpoint(Protocol):
    """Where a long computation saves its state, so that it can be resumed."""

    def load(self) -> dict[str, Any] | None:
        """The last saved state, or None."""

    def due(self) -> bool:
        """Whether it is time to save again."""

    def save(self, state: dict[str, Any]) -> None:
        """Save this state in place of the last."""
