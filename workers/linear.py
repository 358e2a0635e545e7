"""A product with a weight, perhaps laid out ahead for the CPU.

Plain products lay the weight out anew at every call, which for a short text is most of the work.
The layout ahead is oneDNN's by way of torch's own compiler, so it is tried, checked and timed on
the machine (`faster`) before it is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.nn import functional

from base import log

Activation = Literal["none", "gelu", "gelu_tanh", "relu", "silu"]
#: Names of the activations there, with the algorithm where there are several.
FUSED: dict[Activation, tuple[str, str]] = {
    "none": ("none", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "silu": ("swish", ""),
}
APART: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda rows: rows,
    "gelu": functional.gelu,
    "gelu_tanh": lambda rows: functional.gelu(rows, approximate="tanh"),
    "relu": functional.relu,
    "silu": functional.silu,
}
ROUNDS, TRIES = 2, 4
#: A no is asked again so often: on a busy machine 2 of 20 starts said it and were slow for good.
ASKED = 3
#: A different rounding is no fault; another result is.
NEAR = 0.999

logger = log.get("linear")


class Linear:
    """weight: (out, in); bias: (out). Use `plain` until `pack` has worked."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self.weight, self.bias = weight, bias
        self._packed: torch.Tensor | None = None

    @property
    def out(self) -> int:
        return self.weight.shape[0]

    def pack(self) -> None:
        """Lay the weight out ahead. Raises RuntimeError where oneDNN cannot."""
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, None)

    def unpack(self) -> None:
        self._packed = None

    def __call__(self, rows: torch.Tensor, activation: Activation = "none") -> torch.Tensor:
        if self._packed is None:
            return APART[activation](functional.linear(rows, self.weight, self.bias))
        name, algorithm = FUSED[activation]
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._packed, self.bias, name, [], algorithm or None
        )
        return found

    def onto(self, rows: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """The product plus `other`, of the same shape."""
        if self._packed is None:
            return functional.linear(rows, self.weight, self.bias) + other
        # oneDNN's own sum after a bf16 product took 2 ms, product and sum apart take 0.04.
        return self(rows).add_(other)


def faster(linears: list[Linear], forward: Callable[[], torch.Tensor]) -> bool:
    """Leave the layout ahead in place if a `forward` through all of them gains and is the same.

    Timed in turns on one thread by the time that it ran: a start is when everybody wants the CPU.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        try:
            plain = forward()
            _pack(linears)
            packed = forward()
            near = functional.cosine_similarity(plain.float(), packed.float()).min().item()
            for _ in range(ASKED):
                plain_s, packed_s = _timed(linears, forward)
                if packed_s < plain_s:
                    break
        except (RuntimeError, AttributeError) as error:  # not on this CPU, or not in this torch
            logger.info("left weights as they are", why=str(error).partition("\n")[0])
            kept = False
        else:
            kept = near >= NEAR and packed_s < plain_s
            logger.info(
                "laid weights out", kept=kept, plain_ms=round(plain_s * 1000, 2),
                packed_ms=round(packed_s * 1000, 2), cosine=round(near, 5),
            )  # fmt: skip
        finally:
            torch.set_num_threads(threads)
    if not kept:
        _unpack(linears)
    return kept


def _timed(linears: list[Linear], forward: Callable[[], torch.Tensor]) -> tuple[float, float]:
    """(plain, packed): the best of some tries, in seconds."""
    plain_s: list[float] = []
    packed_s: list[float] = []
    for _ in range(ROUNDS):
        for lay, took_s in ((_unpack, plain_s), (_pack, packed_s)):
            lay(linears)
            forward()
            for _ in range(TRIES):
                began_s = time.thread_time()
                forward()
                took_s.append(time.thread_time() - began_s)
    return min(plain_s), min(packed_s)


def _pack(linears: list[Linear]) -> None:
    for one in linears:
        one.pack()


def _unpack(linears: list[Linear]) -> None:
    for one in linears:
        one.unpack()


def all_of(*layers: Any) -> list[Linear]:
    """Every Linear among the fields of these."""
    return [
        value
        for layer in layers
        for value in (getattr(layer, name) for name in layer.__slots__)
        if isinstance(value, Linear)
    ]
