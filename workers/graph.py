"""One text's way through the layers as compiled code: built apart, kept on disk.

`python -m workers.graph MODEL FILE` builds it. A text of a question is so short that calling forty
operations costs as much as computing them; torch's compiler makes one call of it. It needs g++ and
a minute of one core. A batch of many texts gains nothing, and stays as it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from workers.linear import APART

if TYPE_CHECKING:
    from workers.encoder_bert import Bert
    from workers.folder import Recipe

#: Above this many tokens the products take most of the time, and gain nothing.
LONGEST_TOKENS = 64
TRACED_TOKENS = 24
#: Products by its own code alone: nothing is chosen by timing on a busy machine.
OPTIONS: dict[str, Any] = {
    "freezing": True,
    "max_autotune": True,
    "max_autotune_gemm_backends": "CPP",
    "cpp.threads": 1,
}

#: Word and position rows, each (tokens, width) → states, (tokens, width). Needs inference mode.
Run = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Net(torch.nn.Module):
    """The layers of a `Bert`, for one text alone."""

    def __init__(self, bert: Bert) -> None:
        super().__init__()
        self._bert = bert
        self._kept = 0
        self._norm = self._pair(bert.norm)
        self._parts = [
            (
                self._pair((one.qkv.weight, one.qkv.bias)),
                self._pair((one.out.weight, one.out.bias)),
                self._pair(one.out_norm),
                self._pair((one.up.weight, one.up.bias)),
                self._pair((one.down.weight, one.down.bias)),
                self._pair(one.down_norm),
            )
            for one in bert.layers
        ]

    def _pair(self, pair: tuple[torch.Tensor, torch.Tensor]) -> tuple[str, str]:
        """The names under which the module keeps them: the compiler lays out what it owns."""
        names = []
        for one in pair:
            names.append(f"kept_{self._kept}")
            self.register_buffer(names[-1], one)
            self._kept += 1
        return names[0], names[1]

    def _of(self, names: tuple[str, str]) -> tuple[torch.Tensor, torch.Tensor]:
        return getattr(self, names[0]), getattr(self, names[1])

    def _normed(self, rows: torch.Tensor, names: tuple[str, str]) -> torch.Tensor:
        width, epsilon = self._bert.width, self._bert.epsilon
        return functional.layer_norm(rows, (width,), *self._of(names), epsilon)

    def forward(self, words: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        bert = self._bert
        rows = self._normed(words + places, self._norm)
        for qkv, out, out_norm, up, down, down_norm in self._parts:
            joined = functional.linear(rows, *self._of(qkv))
            query, key, value = (
                joined.view(-1, 3, bert.heads, bert.width // bert.heads)
                .permute(1, 2, 0, 3)
                .unsqueeze(1)
                .unbind(0)
            )
            mixed = functional.scaled_dot_product_attention(query, key, value)
            mixed = mixed.transpose(1, 2).reshape(-1, bert.width)
            rows = self._normed(functional.linear(mixed, *self._of(out)) + rows, out_norm)
            inner = APART[bert.activation](functional.linear(rows, *self._of(up)))
            rows = self._normed(functional.linear(inner, *self._of(down)) + rows, down_norm)
        return rows


def key(recipe: Recipe) -> str:
    """The name of what is built here for this model: another torch, CPU or code has another."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    cpu = [
        torch.backends.cpu.get_cpu_capability(),
        torch.cpu._is_amx_tile_supported(),
        torch.cpu._is_avx512_bf16_supported(),
    ]
    digest.update(repr([torch.__version__, sys.version_info[:2], cpu]).encode())
    return f"{recipe.name}-{digest.hexdigest()[:12]}"


def build(bert: Bert, path: Path) -> None:
    """Compile into that file, which is there whole or not at all. Raises what the compiler does."""
    net = Net(bert).eval()
    rows = torch.randn(TRACED_TOKENS, bert.width).to(bert.layers[0].qkv.weight.dtype)
    tokens = {0: torch.export.Dim("tokens", min=2, max=LONGEST_TOKENS)}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        with torch.no_grad():
            exported = torch.export.export(
                net, (rows, rows.clone()), dynamic_shapes=(tokens, tokens), strict=False
            )
            made = torch._inductor.aoti_compile_and_package(
                exported, package_path=f"{folder}/graph.pt2", inductor_configs=OPTIONS
            )
        Path(made).replace(path)


def load(path: Path, runners: int) -> Run:
    """What was built. Up to so many threads may run it at a time. Raises RuntimeError for a file
    that is none.
    """
    loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, runners, -1)

    def run(words: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = loader.boxed_run([words, places])[0]
        return found

    return run


def compiler() -> str | None:
    """Where the C++ compiler is that torch would use."""
    return shutil.which(os.environ.get("CXX", "g++"))


def main(model: str, out: str) -> None:
    from base import log
    from workers import device
    from workers.encoder_bert import Bert
    from workers.folder import read

    log.start("graph", None, "warning")
    os.nice(19)
    recipe = read(model)
    build(Bert(recipe, device.choose("cpu", "bf16")), Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:3])
