"""The lean import leaves nothing out; each check in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

from base.lean import exported

SAME = """
import sys, importlib, pkgutil
from base import lean
lean.install("anthropic")
lean.install("anthropic")
import anthropic
assert "__getattr__" in vars(anthropic), "loaded eagerly"
from anthropic.types.beta import BetaMessage
import anthropic.types.beta.beta_message as home
assert BetaMessage is home.BetaMessage
assert anthropic.AsyncAnthropic is importlib.import_module("anthropic._client").AsyncAnthropic
assert anthropic.__version__ and "RateLimitError" in anthropic.__all__
try:
    anthropic.types.beta.NoSuchThing
    raise SystemExit("found what is not there")
except AttributeError:
    pass
checked = 0
for info in pkgutil.walk_packages(anthropic.__path__, "anthropic."):
    if info.ispkg and info.name.startswith(("anthropic.types", "anthropic.resources")):
        package = importlib.import_module(info.name)
        with open(package.__spec__.origin, encoding="utf-8") as file:
            names = lean.exported(file.read())
        assert names is not None, info.name
        for name, (module, original) in names.items():
            found = getattr(package, name)
            assert found is getattr(importlib.import_module(module, info.name), original)
            checked += 1
print(checked)
"""

RSS = """
import asyncio, pydantic, ssl, sys
from base import llm
def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4 // 1024
before = rss()
if sys.argv[1] == "lean":
    llm._sdk()
else:
    import anthropic
    anthropic.AsyncAnthropic(api_key="x").messages
print(rss() - before, "aiohttp" in sys.modules)
"""


def fresh(code: str, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout.strip()


def test_every_name_is_there_and_the_same_object() -> None:
    assert int(fresh(SAME)) > 2000


def test_it_saves_20_mb() -> None:
    lean_mb, aiohttp = fresh(RSS, "lean").split()
    plain_mb, _ = fresh(RSS, "plain").split()
    assert int(plain_mb) - int(lean_mb) >= 20
    assert aiohttp == "False", "the blocked import left no trace"


SPARE = """
import sys
from base import log
import structlog.dev
assert structlog.dev.rich is None and "rich" not in sys.modules
import rich
from base.lean import without
with without("rich", "no_such_part"):
    import rich.console
try:
    import no_such_part
except ModuleNotFoundError as error:
    assert "halted" not in str(error), "the blocked import left a trace"
import agents.__main__
assert "httpx" not in sys.modules, "a second client beside the model library's own"
"""


def test_what_is_never_used_is_not_loaded_and_can_be_later() -> None:
    fresh(SPARE)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from .a import B as B\n", {"B": (".a", "B")}),
        (
            "# note\nfrom __future__ import x\nfrom .a import (\n    B,\n    C as D,\n)\n",
            {"B": (".a", "B"), "D": (".a", "C")},
        ),
        ('from ..x.y import Z\n\n__all__ = [\n    "Z",\n]\n', {"Z": ("..x.y", "Z")}),
        ("from .a import *\n", None),
        ("from . import a\n", None),
        ("from .a import B\nB.x = 1\n", None),
        ("import os\n", None),
    ],
)
def test_only_pure_re_exports_are_made_lazy(source: str, names: object) -> None:
    assert exported(source) == names
