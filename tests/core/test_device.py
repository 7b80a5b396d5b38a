"""Generators, seeds, frozen models, devices and memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fmlib.core.device import frozen, full_precision, generator, global_rng, memory_budget, mixed_precision, pick_device
from fmlib.core.errors import FmlibError

seeds = st.integers(0, 2**40)
purposes = st.text(max_size=12)


def numbers_of(seed: int, purpose: str) -> list[float]:
    return torch.rand(4, generator=generator(seed, purpose)).tolist()


@given(seeds, purposes)
def test_same_seed_and_purpose_give_the_same_numbers(seed, purpose):
    assert numbers_of(seed, purpose) == numbers_of(seed, purpose)


@given(seeds, purposes, seeds, purposes)
def test_another_seed_or_purpose_gives_other_numbers(seed, purpose, other_seed, other_purpose):
    if (seed, purpose) != (other_seed, other_purpose):
        assert numbers_of(seed, purpose) != numbers_of(other_seed, other_purpose)


def test_numbers_of_one_purpose_do_not_affect_another():
    first, second = generator(0, "first"), generator(0, "second")
    torch.rand(100, generator=first)
    assert torch.rand(4, generator=second).tolist() == numbers_of(0, "second")


def test_two_purposes_are_uncorrelated():
    first = torch.randn(20_000, generator=generator(7, "noise"))
    second = torch.randn(20_000, generator=generator(7, "noise "))
    assert abs(torch.corrcoef(torch.stack((first, second)))[0, 1].item()) < 5 / 20_000**0.5  # five sigma


@given(seeds, purposes)
def test_global_rng_repeats_within_and_restores_after(seed, purpose):
    before = torch.get_rng_state()
    with global_rng(seed, purpose):
        first = torch.rand(3).tolist()
    assert torch.equal(torch.get_rng_state(), before)
    with global_rng(seed, purpose):
        assert torch.rand(3).tolist() == first


def test_global_rng_restores_after_an_exception():
    def fail():
        with global_rng(0, "x"):
            torch.rand(1)
            raise KeyError

    before = torch.get_rng_state()
    with pytest.raises(KeyError):
        fail()
    assert torch.equal(torch.get_rng_state(), before)


# ----------------------------------------------------------------------------------------------------- frozen


def mixed_model() -> nn.Module:
    """Modes, flags and gradients all mixed, as in fine-tuning."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Sequential(nn.Dropout(), nn.Conv2d(2, 2, 1)))
    model(torch.rand(2, 1, 5, 5)).sum().backward()
    model.train()
    model[1].eval()
    model[2][0].eval()
    model[0].weight.requires_grad_(False)
    model[2][1].bias.grad = None
    return model


def test_frozen_is_in_eval_mode_without_gradients_of_parameters():
    with frozen(mixed_model()) as model:
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        images = torch.rand(2, 1, 5, 5, requires_grad=True)
        model(images).sum().backward()
        assert images.grad is not None


def test_frozen_leaves_the_model_as_it_was(snapshot):
    model = mixed_model()
    before = snapshot(model)
    assert len(set(before["modes"])) == len(set(before["flags"])) == 2  # the case is a mixed one
    with frozen(model):
        model(torch.rand(2, 1, 5, 5, requires_grad=True)).sum().backward()
    assert snapshot(model) == before


def test_frozen_restores_after_an_exception(snapshot):
    model = mixed_model()
    before = snapshot(model)
    with pytest.raises(ZeroDivisionError), frozen(model):
        raise ZeroDivisionError
    assert snapshot(model) == before


def test_frozen_restores_gradients_that_were_cleared(snapshot):
    model = mixed_model()
    before = snapshot(model)
    with frozen(model):
        model.zero_grad(set_to_none=True)
    assert snapshot(model) == before


def test_frozen_restores_what_the_block_itself_changed(snapshot):
    model = mixed_model()
    before = snapshot(model)
    with frozen(model):
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        (model(torch.rand(2, 1, 5, 5)) ** 2).sum().backward()
        model[2].train()
    assert snapshot(model) == before


def test_frozen_blocks_nest(snapshot):
    model = mixed_model()
    before = snapshot(model)
    with frozen(model):
        with frozen(model):
            pass
        assert not any(module.training for module in model.modules())
    assert snapshot(model) == before


# ---------------------------------------------------------------------------------------------------- devices


@pytest.mark.parametrize("name", ["quantum", "gpu", "", "cuda:x", "cuda:99"])
def test_unknown_devices_are_refused_by_name(name):
    with pytest.raises(FmlibError, match=f"device '{name}' cannot be used"):
        pick_device(name)


def test_cpu_and_auto_are_usable():
    assert pick_device("cpu") == torch.device("cpu")
    assert torch.ones(2, device=pick_device("auto")).sum().item() == 2


def product() -> torch.dtype:
    """The precision of a matrix product within `mixed_precision` on the CPU."""
    with mixed_precision(torch.device("cpu")):
        return (torch.rand(2, 2) @ torch.rand(2, 2)).dtype


def test_precision_is_full_on_the_cpu():
    assert product() == torch.float32


def test_precision_chosen_by_the_user_is_kept():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product() == torch.bfloat16


@pytest.mark.usefixtures("bfloat16_on_cpu")
def test_precision_is_reduced_on_the_cpu_if_requested():
    assert product() == torch.bfloat16
    assert (torch.rand(2, 2) @ torch.rand(2, 2)).dtype == torch.float32  # outside


@pytest.mark.usefixtures("bfloat16_on_cpu")
def test_full_precision_blocks_nest_and_restore():
    """Precision is full in a nested block, and reduced again after an error."""
    with full_precision():
        with full_precision():
            assert product() == torch.float32
        assert product() == torch.float32
    assert product() == torch.bfloat16
    with pytest.raises(ValueError, match="within"), full_precision():
        raise ValueError("within")
    assert product() == torch.bfloat16


# ----------------------------------------------------------------------------------------------------- memory

FAULTS = """
import resource, sys, torch
from fmlib.core.device import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
torch.set_num_threads(1)
counts = []
for _ in range(40):
    torch.ones(2**24)  # 64 MiB
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(counts[-1] - counts[19])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_kept_memory_causes_no_new_page_faults():
    """Of twenty blocks, after the heap has settled: at least 32 huge pages each, or none."""
    kept, returned = (
        int(subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, check=True).stdout)
        for mode in ("kept", "returned")
    )
    assert returned >= 20 * 32
    assert kept < 32


def test_memory_budget_of_a_cpu_is_fixed_or_the_size_of_the_weights():
    cpu = torch.device("cpu")
    assert 2**20 < memory_budget(cpu, 0) == memory_budget(cpu, 2**20) < 2**30
    assert memory_budget(cpu, 2**30) == 2**30
