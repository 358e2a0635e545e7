"""One engine in a process of its own, asked over stdin: what `embed.py` measures beside ours.

    python embed_engines.py ours|sentence_transformers FOLDER DEVICE DTYPE

A line in is a JSON object, a line out its answer: {"bulk": [texts]} → {"s": seconds},
{"single": [texts]} → {"ms": [each]}, {"vectors": [texts]} → {"vectors": rows of single calls in
fp32}, {"peak": dtype} → {"flops": a second of one large matrix product}.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

Encode = Callable[[Sequence[str]], Any]


def sentence_transformers(folder: str, device: str) -> Encode:
    """As its documentation shows it: no argument but the folder."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device=None if device == "auto" else device)
    return lambda texts: model.encode(list(texts), show_progress_bar=False)


def ours(folder: str, device: str, dtype: str, runner: asyncio.Runner) -> Encode:
    """The product's model without bus and cache."""
    from workers.__main__ import SPIN_ROUNDS

    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_ROUNDS)
    from base.log import start
    from base.settings import load
    from workers import device as devices
    from workers.batch import Core
    from workers.embed_local import Local

    start("bench", None, "warning")  # stdout is for answers

    async def opened() -> tuple[Local, asyncio.Task[None]]:
        chosen = devices.choose(device, dtype)
        core = Core(chosen)
        settings = load(embed_model=folder)
        local = await Local.open(settings, core, chosen)
        await local.improve(settings)
        return local, asyncio.create_task(core.run(), name="core")

    model, _task = runner.run(opened())

    def encode(texts: Sequence[str]) -> Any:
        found = []

        async def into() -> None:  # Runner.run writes the repr of what its coroutine returns: 5 ms
            found.append(await model.vectors(texts, bulk=len(texts) > 1))

        runner.run(into())
        return found[0]

    return encode


def peak(device: str, dtype: str) -> float:
    """The fastest of ten products of 4096 (2048 on a CPU) squared."""
    import torch

    where = "cuda" if torch.cuda.is_available() and device != "cpu" else "cpu"
    side = 8192 if where == "cuda" else 2048
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    one = torch.randn(side, side, device=where).to(kind)
    best_s = float("inf")
    for _ in range(10):
        began_s = time.perf_counter()
        one @ one
        if where == "cuda":
            torch.cuda.synchronize()
        best_s = min(best_s, time.perf_counter() - began_s)
    return 2 * side**3 / best_s


def main() -> None:
    name, folder, device, dtype = sys.argv[1:5]
    with asyncio.Runner() as runner:
        if name == "ours":
            encode = ours(folder, device, dtype, runner)
        else:
            encode = sentence_transformers(folder, device)
        encode(["a first text to warm up", "and another"])
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            told: dict[str, Any] = {}
            if "bulk" in asked:
                began_s = time.perf_counter()
                encode(asked["bulk"])
                told = {"s": time.perf_counter() - began_s}
            elif "single" in asked:
                taken_ms = []
                for text in asked["single"]:
                    began_s = time.perf_counter()
                    encode([text])
                    taken_ms.append((time.perf_counter() - began_s) * 1000)
                told = {"ms": taken_ms}
            elif "vectors" in asked:
                rows = [encode([text])[0] for text in asked["vectors"]]
                told = {"vectors": [[float(number) for number in row] for row in rows]}
            elif "peak" in asked:
                told = {"flops": peak(device, asked["peak"])}
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
