"""The price list and the choice of models."""

from __future__ import annotations

from pathlib import Path

import pytest

from base.errors import SettingsError
from base.messages import Effort, Usage
from base.prices import Models
from base.settings import Settings


def own(home: Path, text: str) -> Models:
    (home / "config").mkdir()
    (home / "config" / "models.toml").write_text(text)
    return Models.load(Settings(home=home))


@pytest.mark.parametrize(
    ("agent", "effort", "purpose", "model"),
    [
        ("code", "minimal", "minimal", "claude-haiku-5-5"),
        ("code", "standard", "execute", "claude-sonnet-5-5"),
        ("code", "extended", "frame", "claude-sonnet-5-5"),
        ("code", "deep", "execute", "claude-opus-5-5"),
        ("code", "deep", "trace", "claude-opus-5-5"),
        ("code", "deep", "judge", "claude-haiku-5-5"),
        ("code", "deep", "reflect", "claude-haiku-5-5"),
        ("supervisor", "standard", "plan", "claude-opus-5-5"),
        ("supervisor", "standard", "title", "claude-haiku-5-5"),
        ("supervisor", "standard", "join", "claude-sonnet-5-5"),
    ],
)
def test_shipped_choice(agent: str, effort: str, purpose: str, model: str) -> None:
    assert Models.load().pick(agent, Effort(effort), purpose) == model


def test_an_agent_s_own_choice_wins(tmp_path: Path) -> None:
    models = own(
        tmp_path,
        '[use]\ndefault = "claude-fable-5-1"\n'
        '[use.agents.code]\ndefault = "claude-opus-5-5"\njudge = "claude-sonnet-5-5"\n',
    )
    assert models.pick("code", "standard", "execute") == "claude-opus-5-5"
    assert models.pick("code", "standard", "judge") == "claude-sonnet-5-5"
    assert models.pick("code", "standard", "reflect") == "claude-haiku-5-5"
    assert models.pick("data", "standard", "execute") == "claude-fable-5-1"


@pytest.mark.parametrize(
    ("name", "usd"),
    [
        ("claude-haiku-5-5", 0.10 + 0.50 + 0.01 + 0.125),
        ("claude-sonnet-5-5", 2 + 10 + 0.10 + 2.50),
        ("claude-opus-5-5", 4 + 20 + 0.20 + 5),
        ("claude-fable-5-1", 10 + 50 + 0.25 + 12.50),
        ("claude-sonnet-4-5", 3 + 15 + 0.30 + 3.75),
        ("claude-haiku-4-5", 1 + 5 + 0.10 + 1.25),
        ("claude-haiku-4-5-20251001", 1 + 5 + 0.10 + 1.25),
        ("unheard-of", 10 + 50 + 0.25 + 12.50),
    ],
)
def test_a_million_of_each_costs(name: str, usd: float) -> None:
    million = 1_000_000
    usage = Usage(
        input_tokens=million,
        output_tokens=million,
        cache_read_tokens=million,
        cache_write_tokens=million,
        cost_usd=99,
    )
    assert Models.load().cost(name, usage) == pytest.approx(usd)


def test_unknown_models_are_told_apart() -> None:
    models = Models.load()
    assert models.find("claude-haiku-4-5-20251001") is models.known["claude-haiku-4-5"]
    assert models.find("claude-haiku-4-5-latest") is None
    assert models.find("unheard-of") is None
    assert models.known["claude-opus-5-5"].output_max_tokens == 128_000


def test_own_prices_lie_over_the_shipped_ones(tmp_path: Path) -> None:
    models = own(
        tmp_path,
        "[models.claude-opus-5-5]\noutput_usd = 1\n"
        "[models.llama]\ninput_usd = 0\noutput_usd = 0\ncache_read_usd = 0\ncache_write_usd = 0\n"
        "context_tokens = 8000\noutput_max_tokens = 4000\n",
    )
    assert models.known["claude-opus-5-5"].output_usd == 1
    assert models.known["claude-opus-5-5"].input_usd == 4
    assert models.cost("llama", Usage(input_tokens=1000)) == 0


def test_every_fault_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        own(tmp_path, "[models.x]\ninput_usd = -1\n[use.efforts]\nhuge = 'x'\n[use]\ncolour = 1\n")
    assert len(caught.value.faults) >= 1
    (tmp_path / "config" / "models.toml").write_text("[models.x]\ninput_usd = -1\nsmell = 2\n")
    with pytest.raises(SettingsError) as caught:
        Models.load(Settings(home=tmp_path))
    told = str(caught.value)
    assert "models.x.input_usd" in told
    assert "models.x.smell" in told
    assert "models.x.output_usd" in told
