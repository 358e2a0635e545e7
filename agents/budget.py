"""Whether the task's own budget covers one more model call. Pure."""

from __future__ import annotations

import json
import math
from typing import Any

from base import attachments
from base.errors import BudgetError
from base.llm import Ask
from base.messages import Budget, Usage
from base.prices import MILLION, Model

#: Low on purpose: text in most languages has more characters a token.
CHARS_PER_TOKEN = 3.5
#: A reply shorter than this is not worth its input.
OUTPUT_MIN_TOKENS = 256


def input_tokens(ask: Ask) -> int:
    """A cautious estimate of what sending `ask` costs in input tokens."""
    messages, files_tokens = attachments.weighed(ask.messages)
    sent: list[Any] = [ask.system, ask.tools, messages]
    text_tokens = math.ceil(len(json.dumps(sent, ensure_ascii=False)) / CHARS_PER_TOKEN)
    return text_tokens + files_tokens


def output_tokens(ask: Ask, model: Model, budget: Budget, spent: Usage) -> int:
    """How many tokens the reply may have, at most `ask.max_tokens`.

    Raises BudgetError when what is left does not cover the input and a short reply. Input is
    priced as the dearer of plain and cache-writing.
    """
    sent = input_tokens(ask)
    left_tokens = budget.tokens - spent.charged_tokens - sent
    input_usd = sent * max(model.input_usd, model.cache_write_usd) / MILLION
    left_usd = budget.usd - spent.cost_usd - input_usd
    affordable = left_usd * MILLION / model.output_usd if model.output_usd else math.inf
    allowed = min(ask.max_tokens, left_tokens, affordable)
    if allowed < min(OUTPUT_MIN_TOKENS, ask.max_tokens):
        raise BudgetError(
            f"the task's budget is used up: spent {spent.charged_tokens:,} of "
            f"{budget.tokens:,} tokens and ${spent.cost_usd:.2f} of ${budget.usd:.2f}; "
            f"the next call needs about {sent:,} tokens and ${input_usd:.4f} before its reply"
        )
    return int(allowed)
