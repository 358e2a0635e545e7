"""Weights laid out ahead: the same results, and used only where they gain."""

from __future__ import annotations

import time

import pytest
import torch

from workers.device import DTYPES
from workers.linear import FUSED, Activation, Linear, faster


@pytest.fixture(params=["fp32", "bf16"])
def linear(request: pytest.FixtureRequest) -> Linear:
    torch.manual_seed(0)
    dtype = DTYPES[request.param]
    made = Linear(torch.randn(96, 64).to(dtype) / 8, torch.randn(96).to(dtype))
    try:
        made.pack()
    except RuntimeError as error:
        pytest.skip(f"this CPU cannot: {error}")
    made.unpack()
    return made


def rows(of: Linear) -> torch.Tensor:
    made = torch.randn(20, 64, generator=torch.Generator().manual_seed(1))
    return made.to(of.weight.dtype)


def burn() -> None:
    """2 ms of this thread's time."""
    until_s = time.thread_time() + 0.002
    while time.thread_time() < until_s:
        pass


@pytest.mark.parametrize("activation", FUSED)
def test_packed_is_what_plain_computes(linear: Linear, activation: Activation) -> None:
    with torch.inference_mode():
        plain = linear(rows(linear), activation)
        linear.pack()
        packed = linear(rows(linear), activation)
    assert torch.allclose(plain.float(), packed.float(), atol=0.05)


def test_packed_adds_what_plain_adds(linear: Linear) -> None:
    other = torch.ones(20, 96, dtype=linear.weight.dtype)
    with torch.inference_mode():
        plain = linear.onto(rows(linear), other)
        linear.pack()
        packed = linear.onto(rows(linear), other)
    assert torch.allclose(plain.float(), packed.float(), atol=0.05)
    assert plain.float().mean() > linear(rows(linear)).float().mean() + 0.5


def test_it_is_kept_where_it_gains_and_only_there(linear: Linear) -> None:
    def forward(slow_when_packed: bool) -> torch.Tensor:
        if (linear._packed is not None) is slow_when_packed:
            burn()
        return linear(rows(linear))

    assert faster([linear], lambda: forward(False))
    assert linear._packed is not None
    linear.unpack()
    assert not faster([linear], lambda: forward(True))
    assert linear._packed is None


def test_what_cannot_or_differs_is_left(linear: Linear) -> None:
    def refused() -> torch.Tensor:
        if linear._packed is not None:
            raise RuntimeError("could not create a primitive")
        burn()
        return linear(rows(linear))

    def different() -> torch.Tensor:
        if linear._packed is None:
            burn()
            return linear(rows(linear))
        return -linear(rows(linear))

    for forward in (refused, different):
        assert not faster([linear], forward)
        assert linear._packed is None
