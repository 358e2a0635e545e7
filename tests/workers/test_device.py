"""The choice of device, number format and batch size: pure, and obeyed."""

from __future__ import annotations

import os
from typing import Literal

import pytest
import torch

from base.errors import SettingsError
from workers import device
from workers.device import Device, Facts

PLAIN = Facts(cuda=False, cuda_bf16=False, cpu_bf16=False, cores=2)
AMX = Facts(cuda=False, cuda_bf16=False, cpu_bf16=True, cores=8)
GPU = Facts(cuda=True, cuda_bf16=True, cpu_bf16=False, cores=16)
OLD_GPU = Facts(cuda=True, cuda_bf16=False, cpu_bf16=True, cores=16)


@pytest.mark.parametrize(
    ("asked", "has", "name", "dtype"),
    [
        (("auto", "auto"), PLAIN, "cpu", "fp32"),
        (("auto", "auto"), AMX, "cpu", "bf16"),
        (("auto", "auto"), GPU, "cuda", "bf16"),
        (("auto", "auto"), OLD_GPU, "cuda", "fp32"),
        (("cpu", "auto"), OLD_GPU, "cpu", "bf16"),
        (("cpu", "bf16"), PLAIN, "cpu", "bf16"),
        (("cuda", "fp32"), GPU, "cuda", "fp32"),
    ],
)
def test_choice(asked: tuple[str, str], has: Facts, name: str, dtype: str) -> None:
    found = device.decide(*asked, has)
    assert (found.name, found.dtype, found.threads) == (name, dtype, has.cores)


def test_what_does_not_pay_is_obeyed_and_said() -> None:
    assert "does not multiply" in device.decide("cpu", "bf16", PLAIN).why


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match="no GPU"):
        device.decide("cuda", "auto", PLAIN)


def test_batch_by_free_memory() -> None:
    assert device.budget_tokens(None, 10_000) == device.CPU_TOKENS
    assert device.budget_tokens(100_000_000, 10_000) == 5_000
    assert device.budget_tokens(10**12, 10_000) == device.GPU_TOKENS
    assert device.budget_tokens(0, 10_000) == device.LEAST_TOKENS


def test_out_of_memory_is_known_on_both() -> None:
    chosen = device.decide("cpu", "auto", PLAIN)
    assert chosen.out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert chosen.out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate"))
    assert not chosen.out_of_memory(RuntimeError("shapes do not fit"))


def test_relief_is_safe_here() -> None:
    device.decide("cpu", "auto", PLAIN).relieve()


@pytest.mark.parametrize(("dtype", "few"), [("bf16", 1), ("fp32", 2)])
def test_a_short_text_has_few_threads_and_a_long_one_all(
    monkeypatch: pytest.MonkeyPatch, dtype: Literal["bf16", "fp32"], few: int
) -> None:
    chosen = Device(name="cpu", dtype=dtype, threads=4, fast=False, why="")
    before = torch.get_num_threads()

    def given(lanes: int, tokens: int | None, load: float = 0.0) -> int:
        monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
        chosen.share(lanes, tokens)
        return torch.get_num_threads()

    try:
        assert (given(1, 1), given(1, 64), given(1, 65), given(1, None)) == (few, few, 4, 4)
        assert (given(4, 64), given(2, 500), given(1, 500, load=9.0)) == (1, 2, 1)
    finally:
        torch.set_num_threads(before)
