"""Which device computes, in which number format, with how much memory. Loads torch.

`decide` and `budget_tokens` are pure: the facts of a machine in, the choice out.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Literal

import torch

from base import log
from base.errors import SettingsError

#: Share of the free memory of a GPU that one batch may take.
SHARE = 0.5
#: A batch above this gains nothing on any device measured.
CPU_TOKENS = 2_048
GPU_TOKENS = 65_536
LEAST_TOKENS = 256
#: Up to here a batch of texts is short: it has one thread, since whoever asks for so few waits for
#: them and uses the other cores; in fp32, where a question takes 11 ms on one and 7 on two, two.
SHORT_TOKENS = 64
SHORT_THREADS: dict[str, int] = {"bf16": 1, "fp32": 2}
#: Load a core, over the last minute, from which on others want the cores too.
BUSY = 1.5

logger = log.get("device")

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a machine has. cuda: a GPU can be used; *_bf16: it multiplies bf16 in hardware."""

    cuda: bool
    cuda_bf16: bool
    cpu_bf16: bool
    cores: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The choice. fast: it multiplies bf16 in hardware. `why`: in words, for the log."""

    name: Literal["cpu", "cuda"]
    dtype: Literal["fp32", "bf16"]
    threads: int
    fast: bool
    why: str

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.name)

    @property
    def lanes(self) -> int:
        """Batches at a time: on a CPU one a core, since products this small share badly."""
        return self.threads if self.name == "cpu" else 1

    def share(self, lanes: int, tokens: int | None = None) -> None:
        """Set the threads of this compute thread. One batch alone gets all cores, unless it is
        short or the machine is busy: then threads that wait for each other are slower than few.
        """
        alone = max(1, self.threads // lanes)
        if tokens is not None and tokens <= SHORT_TOKENS:
            alone = min(alone, SHORT_THREADS[self.dtype])
        if os.getloadavg()[0] > BUSY * self.threads:
            alone = 1
        if torch.get_num_threads() != alone:
            torch.set_num_threads(alone)

    @property
    def free_bytes(self) -> int | None:
        """Memory of the GPU that a batch could get, cached blocks included; None: no GPU."""
        if self.name != "cuda":
            return None
        free_bytes, _ = torch.cuda.mem_get_info()
        cached_bytes = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return int(free_bytes) + int(cached_bytes)

    def budget_tokens(self, token_bytes: float) -> int:
        """Tokens of one batch now, when each takes `token_bytes` at the batch's fullest moment."""
        return budget_tokens(self.free_bytes, token_bytes)

    def out_of_memory(self, error: BaseException) -> bool:
        """On a CPU torch says it with a RuntimeError."""
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
            return True
        return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)

    def relieve(self) -> None:
        """Give cached memory back to the system."""
        if self.name == "cuda":
            torch.cuda.empty_cache()
        trim()


def choose(device: str, dtype: str) -> Device:
    """The device and number format for these settings on this machine, logged.

    Sets the number of threads. Raises SettingsError for a device that is not there.
    """
    chosen = decide(device, dtype, facts())
    torch.set_num_threads(chosen.threads)
    if chosen.name == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
    name = torch.cuda.get_device_name() if chosen.name == "cuda" else "cpu"
    logger.info(
        "chose", device=chosen.name, dtype=chosen.dtype, threads=chosen.threads,
        model=name, why=chosen.why,
    )  # fmt: skip
    return chosen


def facts() -> Facts:
    cuda = torch.cuda.is_available()
    return Facts(
        cuda=cuda,
        cuda_bf16=cuda and torch.cuda.is_bf16_supported(including_emulation=False),
        cpu_bf16=torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported(),
        cores=len(os.sched_getaffinity(0)),
    )


def decide(device: str, dtype: str, has: Facts) -> Device:
    """`device` auto, cpu or cuda; `dtype` auto, fp32 or bf16. What is asked for is obeyed."""
    if device == "cuda" and not has.cuda:
        raise SettingsError(["embed_device is cuda, and torch finds no GPU that it can use"])
    name: Literal["cpu", "cuda"] = (
        "cuda" if device == "cuda" or (device == "auto" and has.cuda) else "cpu"
    )
    fast = has.cuda_bf16 if name == "cuda" else has.cpu_bf16
    where = "the GPU" if name == "cuda" else "the CPU"
    chosen: Literal["fp32", "bf16"]
    if dtype == "auto":
        chosen = "bf16" if fast else "fp32"
        why = f"{where} {'multiplies' if fast else 'does not multiply'} bf16 in hardware"
    else:
        chosen = "bf16" if dtype == "bf16" else "fp32"
        why = "the settings ask for it"
        if chosen == "bf16" and not fast:
            why += f", though {where} does not multiply it in hardware"
    return Device(name=name, dtype=chosen, threads=max(1, has.cores), fast=fast, why=why)


def budget_tokens(free_bytes: int | None, token_bytes: float) -> int:
    """Tokens of one batch: what half of the free memory holds; without a GPU what runs best."""
    if free_bytes is None:
        return CPU_TOKENS
    return max(LEAST_TOKENS, min(GPU_TOKENS, int(free_bytes * SHARE / token_bytes)))


def trim() -> None:
    """Give freed pages of the C heap back to the system; nothing where the C library cannot."""
    if (malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        malloc_trim(0)
