"""The kinds of scoring job: each has a file of its own and a line here.

A job answers one payload at a time; what it computes goes through the core, where concurrent
payloads meet in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from workers.jobs import duplicates, rerank, sentiment, topk
from workers.jobs.bench import Bench, Job

JOBS: Mapping[str, Callable[[Bench], Job]] = MappingProxyType(
    {
        "topk": topk.Topk,
        "rerank": rerank.Rerank,
        "sentiment": sentiment.Sentiment,
        "duplicates": duplicates.Duplicates,
    }
)
