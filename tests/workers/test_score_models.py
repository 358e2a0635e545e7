"""Cross-encoders and sentiment models: small ones of random weights, made here, on disk as any."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from base.errors import InputError, SettingsError
from base.settings import Settings
from workers.batch import Core
from workers.device import Device, choose
from workers.jobs import rerank, sentiment
from workers.jobs.bench import Bench

QUERY = "where is the key"
TEXTS = [
    "the key is under the mat",
    "a dog",
    " ".join(["the dog is under the mat"] * 30),
    "",
    "where is the dog the key is under a dog",
] * 5


async def no_vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    raise AssertionError("no vectors are needed")


def write_model(folder: Path, labels: Sequence[str], *, max_tokens: int = 64) -> Path:
    """A Bert of two small layers with these labels, and a tokenizer of a few words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(set(" ".join([QUERY, *TEXTS]).split()))]
    tokenizer = Tokenizer(WordLevel({word: at for at, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=max_tokens,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=max_tokens, initializer_range=0.6,
        id2label=dict(enumerate(labels)), label2id={one: at for at, one in enumerate(labels)},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "one", ["LABEL_0"])
    write_model(folder / "two", ["no", "yes"])
    write_model(folder / "mood", ["negative", "neutral", "positive"])
    write_model(folder / "joys", ["joy", "anger", "fear"])
    return folder


@pytest.fixture
async def core() -> AsyncIterator[Core]:
    core = Core(choose("cpu", "fp32"))
    running = asyncio.create_task(core.run(), name="core")
    yield core
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def bench(core: Core, dtype: str = "fp32", **settings: Any) -> Bench:
    return Bench(
        core=core, device=choose("cpu", dtype), settings=Settings(**settings), embed=no_vectors
    )


def plain(folder: Path, texts: Sequence[str], pairs: Sequence[str] | None) -> list[list[float]]:
    """One text at a time, without padding, as transformers' own pages do it."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    found = []
    for at, text in enumerate(texts):
        pair = None if pairs is None else [pairs[at]]
        told = tokenizer([text], pair, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            found.append(model(**told).logits[0].tolist())
    return found


async def test_pairs_score_as_the_model_alone_scores_them(core: Core, models: Path) -> None:
    job = rerank.Rerank(bench(core, rerank_model=models / "one"))
    assert job.info() == {"ready": True, "loaded": False}
    found = await job.answer({"query": QUERY, "texts": TEXTS})
    alone = plain(models / "one", [QUERY] * 5, TEXTS[:5])
    assert found["scores"] == pytest.approx([one[0] for one in alone] * 5, abs=1e-4)
    assert len(set(np.round(found["scores"][:5], 3))) == 5  # they differ: it is no constant
    assert job.info() == {"ready": True, "loaded": True}


async def test_two_labels_score_by_the_lead_of_the_second(core: Core, models: Path) -> None:
    job = rerank.Rerank(bench(core, rerank_model=models / "two"))
    found = await job.answer({"query": QUERY, "texts": TEXTS[:3]})
    alone = plain(models / "two", [QUERY] * 3, TEXTS[:3])
    assert found["scores"] == pytest.approx([yes - no for no, yes in alone], abs=1e-4)


async def test_batches_hold_texts_of_one_length_within_the_budget(
    core: Core, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Device, "budget_tokens", lambda _self, _bytes: 128)
    job = rerank.Rerank(bench(core, rerank_model=models / "one"))
    assert job._model is not None
    shapes: list[tuple[int, int]] = []
    forward = job._model._forward

    def noted(items: list[dict[str, list[int]]]) -> list[list[float]]:
        lengths = [len(one["input_ids"]) for one in items]
        shapes.append((len(items), max(lengths)))
        assert len(lengths) * max(lengths) < 1.3 * sum(lengths)  # little is padding
        return forward(items)

    job._model._work._forward = noted
    await asyncio.gather(*(job.answer({"query": QUERY, "texts": TEXTS}) for _ in range(2)))
    assert sum(count for count, _ in shapes) == 2 * len(TEXTS)
    assert all(count * longest <= 128 for count, longest in shapes)
    assert max(count for count, _ in shapes) > 1


async def test_bf16_is_near_to_fp32(core: Core, models: Path) -> None:
    given = {"query": QUERY, "texts": TEXTS[:5]}
    exact = await rerank.Rerank(bench(core, rerank_model=models / "one")).answer(given)
    fast = await rerank.Rerank(bench(core, "bf16", rerank_model=models / "one")).answer(given)
    assert fast["scores"] == pytest.approx(exact["scores"], abs=0.5)
    assert fast["scores"] != exact["scores"]


async def test_without_a_model_reranking_says_so(core: Core) -> None:
    job = rerank.Rerank(bench(core))
    assert job.info() == {"ready": False, "why": "rerank_model is not set"}
    with pytest.raises(InputError, match="no rerank_model is set"):
        await job.answer({"query": "a", "texts": ["b"]})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"query": "", "texts": ["a"]}, "query must be a text"),
        ({"query": "a" * 4_001, "texts": ["a"]}, "query has 4,001 characters"),
        ({"query": "a", "texts": []}, "1 to 10,000 texts"),
        ({"query": "a"}, "texts must be a list"),
    ],
)
async def test_reranking_nonsense_is_refused(
    core: Core, models: Path, given: Any, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        await rerank.Rerank(bench(core, rerank_model=models / "one")).answer(given)


async def test_a_folder_that_is_no_such_model_is_named(
    core: Core, models: Path, tmp_path: Path
) -> None:
    async def fault(folder: Path) -> str:
        job = rerank.Rerank(bench(core, rerank_model=folder))
        with pytest.raises(SettingsError) as caught:
            await job.answer({"query": "a", "texts": ["b"]})
        return str(caught.value)

    assert await fault(tmp_path) == f"settings: rerank_model: {tmp_path} has no config.json"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert (await fault(tmp_path)).startswith(f"settings: rerank_model: {tmp_path}: ")
    assert "3 labels" in await fault(models / "mood")


async def test_a_pickled_model_is_not_opened(core: Core, models: Path, tmp_path: Path) -> None:
    for file in (models / "one").iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(SettingsError, match="rerank_model"):
        await rerank.Rerank(bench(core, rerank_model=tmp_path)).answer(
            {"query": "a", "texts": ["b"]}
        )


# Sentiment ------------------------------------------------------------------------------------


async def test_a_model_of_moods_gives_what_its_labels_are_worth(core: Core, models: Path) -> None:
    job = sentiment.Sentiment(bench(core, sentiment_model=models / "mood"))
    assert job.info() == {"ready": True, "by": "model", "loaded": False}
    found = await job.answer({"texts": TEXTS[:5]})
    chances = torch.tensor(plain(models / "mood", TEXTS[:5], None)).softmax(dim=1)
    assert found["by"] == "model"
    assert found["scores"] == pytest.approx((chances[:, 2] - chances[:, 0]).tolist(), abs=1e-4)


async def test_a_model_without_moods_is_refused(core: Core, models: Path) -> None:
    job = sentiment.Sentiment(bench(core, sentiment_model=models / "joys"))
    with pytest.raises(SettingsError, match="labels joy, anger, fear: no sentiment"):
        await job.answer({"texts": ["a"]})


@pytest.mark.parametrize(
    ("labels", "worth"),
    [
        (("NEGATIVE", "POSITIVE"), (-1, 1)),
        (("positive", "neutral", "negative"), (1, 0, -1)),
        (("LABEL_0", "LABEL_1", "LABEL_2"), (-1, 0, 1)),
        (("1 star", "2 stars", "3 stars", "4 stars", "5 stars"), (-1, -0.5, 0, 0.5, 1)),
    ],
)
def test_labels_have_their_usual_worth(labels: tuple[str, ...], worth: tuple[float, ...]) -> None:
    assert sentiment.values(labels) == worth


def test_the_expected_worth_stays_in_range() -> None:
    assert sentiment.expected([0.0, 0.0], (-1, 1)) == 0
    assert sentiment.expected([-1e30, 1e30], (-1, 1)) == 1
    assert sentiment.expected([900.0, 0.0, 0.0], (-1, 0, 1)) == -1


async def test_without_a_model_the_words_decide(core: Core) -> None:
    job = sentiment.Sentiment(bench(core))
    found = await job.answer({"texts": ["great, thank you!", "das ist furchtbar", "", "42"]})
    assert found["by"] == "lexicon"
    good, bad, empty, number = found["scores"]
    assert good > 0.6
    assert bad < -0.6
    assert empty == number == 0
    with pytest.raises(InputError, match="texts must be a list"):
        await job.answer({"texts": None})


def test_the_library_for_models_is_not_loaded_without_one() -> None:
    import subprocess

    code = (
        "import sys, workers.score; from workers.jobs.lexicon import Lexicon; Lexicon.load();"
        "assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
