"""The budget is looked at before each call, and cautiously."""

from __future__ import annotations

import pytest

from agents.budget import input_tokens, output_tokens
from base.errors import BudgetError
from base.llm import Ask
from base.messages import Budget, Usage
from base.prices import Model

MODEL = Model(
    input_usd=1, output_usd=10, cache_read_usd=0.1, cache_write_usd=2,
    context_tokens=100_000, output_max_tokens=10_000,
)  # fmt: skip
ASK = Ask(
    agent="code", purpose="execute", task_id="t", model="m", system="s" * 3_500,
    messages=[{"role": "user", "content": "x"}], max_tokens=4_000,
)  # fmt: skip


def allowed(tokens: int, usd: float, **spent: float) -> int:
    return output_tokens(ASK, MODEL, Budget(tokens=tokens, usd=usd), Usage.model_validate(spent))


def test_the_estimate_is_not_below_three_and_a_half_characters_a_token() -> None:
    assert 1_000 < input_tokens(ASK) < 1_050


def test_enough_allows_the_whole_reply() -> None:
    assert allowed(100_000, 1.0) == 4_000


def test_few_tokens_left_shorten_the_reply() -> None:
    left = input_tokens(ASK) + 500
    assert allowed(left, 1.0) == 500
    assert allowed(left + 7_000, 1.0, input_tokens=7_000) == 500


def test_cached_tokens_count_as_a_tenth() -> None:
    allowed(5_000, 1.0, cache_read_tokens=4_500)
    with pytest.raises(BudgetError):
        allowed(5_000, 1.0, cache_read_tokens=45_000)


def test_few_dollars_left_shorten_the_reply() -> None:
    input_usd = input_tokens(ASK) * 2 / 1e6
    assert allowed(100_000, input_usd + 0.0100001) == 1_000
    assert allowed(100_000, 1 + input_usd + 0.0100001, cost_usd=1.0) == 1_000


@pytest.mark.parametrize(("tokens", "usd"), [(1_100, 1.0), (100_000, 0.003), (0, 0.0)])
def test_too_little_is_refused_with_the_figures(tokens: int, usd: float) -> None:
    with pytest.raises(BudgetError, match="spent 0 of"):
        allowed(tokens, usd)


def test_a_short_reply_may_be_shorter_than_the_least() -> None:
    from dataclasses import replace

    short = replace(ASK, max_tokens=100)
    left = Budget(tokens=input_tokens(short) + 100, usd=1)
    assert output_tokens(short, MODEL, left, Usage()) == 100


def test_what_is_charged() -> None:
    spent = Usage(input_tokens=10, output_tokens=20, cache_read_tokens=1000, cache_write_tokens=30)
    assert spent.charged_tokens == 160
    assert spent.tokens == 1060
