"""How fast are embeddings beside sentence-transformers and infinity-emb? Real chat turns.

Ours is the worker as the product runs it, over the bus and with its cache emptied before each
round, and the same model in a process alone. sentence-transformers runs with its defaults in a
process alone; infinity-emb as its own HTTP server. All take turns, round by round; a ratio is the
median of the rounds'.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np

from base import streams
from base.bus import Bus
from base.deadline import Deadline
from base.log import start as start_log
from pai.embed import Embedder
from workers.folder import locate

CALLERS = 64
SINGLE_TOKENS_ABOUT = 20
PATIENT_S = 600.0


class Engine:
    """A process of `embed_engines.py`."""

    def __init__(self, name: str, folder: Path, options: argparse.Namespace, home: str) -> None:
        script = str(Path(__file__).with_name("embed_engines.py"))
        self._process = subprocess.Popen(
            [sys.executable, script, name, str(folder), options.device, options.dtype],
            env=os.environ | {"AI_INFRA_HOME": home, "AI_INFRA_EMBED_COMPILE": compile_(options)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._told()

    async def ask(self, **asked: Any) -> dict[str, Any]:
        """In a thread: the bus goes on meanwhile."""
        return await asyncio.to_thread(self._ask, asked)

    def _ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self._told()

    def _told(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            sys.exit(f"an engine ended: {self._process.args}")
        told: dict[str, Any] = json.loads(line)
        return told

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def compile_(options: argparse.Namespace) -> str:
    return "auto" if options.compiled_s else "off"


@contextlib.contextmanager
def private_redis() -> Iterator[str]:
    binary = shutil.which("redis-server") or sys.exit("redis-server is not on PATH")
    with tempfile.TemporaryDirectory(prefix="ai-bench-", dir="/tmp") as folder:
        path = Path(folder) / "redis.sock"
        server = subprocess.Popen(
            [binary, "--port", "0", "--unixsocket", str(path), "--save", ""],
            cwd=folder,
            stdout=subprocess.DEVNULL,
        )
        try:
            while not path.exists():
                time.sleep(0.01)
            yield f"unix://{path}"
        finally:
            server.terminate()
            server.wait(10)


@contextlib.contextmanager
def worker(url: str, folder: Path, options: argparse.Namespace) -> Iterator[tuple[float, int, str]]:
    """Our worker; the seconds from its start to READY, its pid and its home."""
    with tempfile.TemporaryDirectory(prefix="ai-bench-") as home:
        ours = {
            "AI_INFRA_HOME": home, "AI_INFRA_REDIS_URL": url, "AI_INFRA_EMBED_MODEL": str(folder),
            "AI_INFRA_EMBED_DEVICE": options.device, "AI_INFRA_EMBED_DTYPE": options.dtype,
            "AI_INFRA_EMBED_COMPILE": compile_(options),
        }  # fmt: skip
        began_s = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "workers", "embed"], cwd=ROOT, env=os.environ | ours,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        if not process.stdout.readline().startswith("READY"):
            sys.exit("our worker did not start")
        try:
            yield time.monotonic() - began_s, process.pid, home
        finally:
            process.terminate()
            process.wait(30)


@contextlib.contextmanager
def infinity(python: str, folder: Path, options: argparse.Namespace) -> Iterator[int]:
    """The port of an infinity-emb server with its defaults, ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = Path(python).parent / "infinity_emb"
    where = [] if options.device == "auto" else ["--device", options.device]
    process = subprocess.Popen(
        [str(command), "v2", "--model-id", str(folder), "--engine", "torch", *where,
         "--port", str(port), "--log-level", "error"],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(1_200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            if process.poll() is not None:
                sys.exit(f"infinity-emb ended: {command}")
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(30)


async def crowd(texts: Sequence[str], ask: Callable[[int, str], Awaitable[None]]) -> float:
    """Texts a second of 64 callers who each ask for one text at a time."""
    left = list(texts)

    async def caller(number: int) -> None:
        while left:
            await ask(number, left.pop())

    began_s = time.perf_counter()
    await asyncio.gather(*[caller(number) for number in range(CALLERS)])
    return len(texts) / (time.perf_counter() - began_s)


async def crowd_infinity(port: int, model: str, texts: Sequence[str]) -> float:
    """The same over HTTP: a kept connection a caller, and no client library in the way."""
    lines = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CALLERS)]

    async def ask(number: int, text: str) -> None:
        reader, writer = lines[number]
        body = json.dumps({"model": model, "input": [text]}).encode()
        head = "POST /embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        told = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        answer = await reader.readexactly(int(told.split("content-length:")[1].split()[0]))
        if " 200 " not in told.splitlines()[0]:
            sys.exit(f"infinity-emb refused: {answer[:200]!r}")

    try:
        return await crowd(texts, ask)
    finally:
        for _, writer in lines:
            writer.close()


class Ours:
    """Our worker over the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._embedder = Embedder(bus)

    async def forget(self) -> None:
        """Empty the cache."""
        (keys,) = await self._bus.call(("KEYS", streams.EMBEDDING_PREFIX + "*"))
        if keys:
            await self._bus.call(("DEL", *keys))

    async def bulk(self, texts: Sequence[str]) -> float:
        await self.forget()
        began_s = time.perf_counter()
        await self._embedder.embed(texts, "bulk", Deadline.after(PATIENT_S))
        return len(texts) / (time.perf_counter() - began_s)

    async def single(self, texts: Sequence[str]) -> list[float]:
        await self.forget()
        taken_ms = []
        for text in texts:
            began_s = time.perf_counter()
            await self._embedder.embed([text], "query", Deadline.after(PATIENT_S))
            taken_ms.append((time.perf_counter() - began_s) * 1000)
        return taken_ms

    async def crowd(self, texts: Sequence[str]) -> float:
        await self.forget()

        async def ask(_number: int, text: str) -> None:
            await self._embedder.embed([text], "query", Deadline.after(PATIENT_S))

        return await crowd(texts, ask)

    async def vectors(self, texts: Sequence[str]) -> Any:
        await self.forget()
        found = await self._embedder.embed(texts, "bulk", Deadline.after(PATIENT_S))
        return found.matrix

    async def info(self) -> dict[str, Any]:
        return await self._embedder.info()


def flops(lengths: Sequence[int], config: dict[str, Any]) -> float:
    """Of one forward over texts of these lengths: the matrix products of a BERT's layers."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    of_token = 2 * (4 * width * width + 2 * width * inner)
    return float(
        config["num_hidden_layers"] * sum(n * of_token + 4 * n * n * width for n in lengths)
    )


def report(name: str, bulk: list[float], single_ms: list[float]) -> None:
    shown = f"{statistics.median(single_ms):.1f}" if single_ms else ""
    print(f"{name:38}{statistics.median(bulk):>12.0f}{shown:>18}")


async def run(options: argparse.Namespace) -> None:
    from workers.folder import read
    from workers.tokens import Tokenizer

    folder = locate(options.model)
    recipe = read(str(folder))
    turns = [turn["text"] for one in json.loads(options.data.read_text()) for turn in one["turns"]]
    texts = list(dict.fromkeys(turns))[: options.texts]
    lengths = [len(one) for one in Tokenizer(recipe).encode(texts).ids]
    near = sorted(range(len(texts)), key=lambda at: abs(lengths[at] - SINGLE_TOKENS_ABOUT))
    singles = [texts[at] for at in near[: options.singles]]
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    with private_redis() as url, worker(url, folder, options) as (ready_s, pid, home):
        bus = await Bus.open(url, "bench")
        ours = Ours(bus)
        info = await ours.info()
        # Without bf16 units nothing is compiled, and a bf16 product would take minutes.
        kinds = ("fp32", "bf16") if info["dtype"] == "bf16" else ("fp32",)
        wait_s = options.compiled_s if "bf16" in kinds else 0
        until_s = time.monotonic() + wait_s
        while wait_s and not info["compiled"] and time.monotonic() < until_s:
            await asyncio.sleep(2)
            info = await ours.info()
        plain = Engine("sentence_transformers", folder, options, home)
        alone = Engine("ours", folder, options, home)
        peaks = {kind: (await plain.ask(peak=kind))["flops"] for kind in kinds}
        expected = np.array((await plain.ask(vectors=texts[: options.compared]))["vectors"])
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        got = await ours.vectors(texts)
        cosine = float((got[: len(expected)] * expected).sum(1).min())
        for _ in range(options.rounds):
            note("st", len(texts) / (await plain.ask(bulk=texts))["s"])
            note("bus", await ours.bulk(texts))
            note("alone", len(texts) / (await alone.ask(bulk=texts))["s"])
            st_ms = statistics.median((await plain.ask(single=singles))["ms"])
            bus_ms = statistics.median(await ours.single(singles))
            alone_ms = statistics.median((await alone.ask(single=singles))["ms"])
            note("st_ms", st_ms)
            note("bus_ms", bus_ms)
            note("alone_ms", alone_ms)
            for kind in kinds:
                peaks[kind] = max(peaks[kind], (await plain.ask(peak=kind))["flops"])
        plain.close()
        alone.close()
        rss_mb = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6
        if options.infinity:
            with infinity(options.infinity, folder, options) as port:
                model = await asyncio.to_thread(_infinity_model, port)
                await crowd_infinity(port, model, texts[:CALLERS])
                for _ in range(options.rounds):
                    note("infinity_c64", await crowd_infinity(port, model, texts))
                    note("bus_c64", await ours.crowd(texts))
        await bus.close()

    best = max(peaks.values())
    rate = statistics.median(found["bus"])
    achieved = flops(lengths, recipe.config) / len(texts) * rate
    how = "short texts compiled" if info["compiled"] else "nothing compiled"
    print(f"{len(texts)} texts, {sum(lengths) / len(lengths):.0f} tokens on average; ours on "
          f"{info['device']} in {info['dtype']}, {how}; load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"{'':38}{'bulk texts/s':>12}{'single p50 ms':>18}")
    report("sentence-transformers, defaults", found["st"], found["st_ms"])
    report("ours, over the bus", found["bus"], found["bus_ms"])
    report("ours, the model alone", found["alone"], found["alone_ms"])
    if options.infinity:
        report(f"infinity-emb, HTTP, {CALLERS} callers of one", found["infinity_c64"], [])
        report(f"ours, over the bus, {CALLERS} callers of one", found["bus_c64"], [])
    alone_gflops = ", ".join(f"{kind} {peak / 1e9:,.0f}" for kind, peak in peaks.items())
    print(f"GFLOP/s of matrix products alone: {alone_gflops}; ours achieved {achieved / 1e9:,.0f}")
    print(f"figure embed.ratio_bulk {_ratio(found, 'bus', 'st'):.2f} x")
    print(f"figure embed.ratio_single_p50 {_ratio(found, 'alone_ms', 'st_ms'):.2f} x")
    print(f"figure embed.ratio_single_bus_p50 {_ratio(found, 'bus_ms', 'st_ms'):.2f} x")
    print(f"figure embed.cosine_min {cosine:.5f} cos")
    print(f"figure embed.peak_fraction {achieved / best:.2f} of_peak")
    print(f"figure embed.ready_s {ready_s:.1f} s")
    print(f"figure embed.worker_rss_mb {rss_mb:.0f} MB")
    if options.infinity:
        print(f"figure embed.ratio_infinity_c64 {_ratio(found, 'bus_c64', 'infinity_c64'):.2f} x")


def _ratio(found: dict[str, list[float]], ours: str, theirs: str) -> float:
    return statistics.median(a / b for a, b in zip(found[ours], found[theirs], strict=True))


def _infinity_model(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/models", timeout=10) as answer:
        return str(json.load(answer)["data"][0]["id"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="a JSON list of {turns: [{text}]}")
    parser.add_argument("--texts", type=int, default=1_024)
    parser.add_argument("--singles", type=int, default=50)
    parser.add_argument("--compared", type=int, default=256, help="texts whose cosine is taken")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="minilm")
    parser.add_argument(
        "--compiled-s", type=float, default=300, help="wait so long for compiled code; 0: none"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--dtype", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--infinity", metavar="PYTHON", help="a python that has infinity-emb")
    start_log("bench", None, "warning")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
