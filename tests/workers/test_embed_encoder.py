"""Our graph and every kind of folder, against transformers itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Tokenizer as Fast
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from base.errors import SettingsError
from workers import device, folder
from workers.device import Device, Facts
from workers.encoder import Encoder, pool
from workers.encoder_bert import Bert
from workers.tokens import Tokenizer

pytestmark = pytest.mark.xdist_group("transformers")  # one worker loads them

CPU = device.decide("cpu", "fp32", Facts(cuda=False, cuda_bf16=False, cpu_bf16=False, cores=2))
BF16 = device.decide("cpu", "bf16", Facts(cuda=False, cuda_bf16=False, cpu_bf16=False, cores=2))
TEXTS = (
    "the deployment failed since the disk was full",
    "disk",
    "who renewed the certificate of the shop, and when was that?",
    "",
    "a much longer text " * 40,
    "the deployment failed as the disk was full",
)
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "disk", "was", "full", "who", "deployment")
SMALL: dict[str, Any] = {
    "vocab_size": len(WORDS), "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    return Encoder(folder.read("minilm"), CPU)


def reference(root: Path, texts: Sequence[str], recipe: folder.Recipe) -> list[torch.Tensor]:
    """The last hidden states of each text alone, by transformers in fp32."""
    model = transformers.AutoModel.from_pretrained(str(root)).eval()
    ids = Tokenizer(recipe).encode(texts).ids
    with torch.inference_mode():
        return [model(input_ids=torch.from_numpy(one)[None]).last_hidden_state[0] for one in ids]


def unit(rows: list[torch.Tensor]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = torch.nn.functional.normalize(torch.stack(rows)).numpy()
    return found


def tiny(path: Path, config: transformers.PretrainedConfig, model: Any) -> Path:
    """A folder with random weights and a tokenizer of ten words."""
    torch.manual_seed(0)
    model(config).save_pretrained(path)
    fast = Fast(WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    fast.pre_tokenizer = Whitespace()
    fast.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast.save(str(path / "tokenizer.json"))
    return path


def encoded(path: Path | str, texts: Sequence[str], on: Device = CPU) -> NDArray[np.float32]:
    recipe = folder.read(str(path))
    return Encoder(recipe, on).encode(Tokenizer(recipe).encode(texts).ids)


def test_minilm_is_what_transformers_computes_one_by_one(minilm: Encoder) -> None:
    recipe = folder.read("minilm")
    assert (recipe.max_tokens, recipe.poolings, minilm.dim) == (256, ("mean",), 384)
    assert isinstance(minilm._trunk, Bert)
    expected = unit([one.mean(0) for one in reference(recipe.root, TEXTS, recipe)])
    found = minilm.encode(Tokenizer(recipe).encode(TEXTS).ids)
    assert (found * expected).sum(1).min() > 0.99999
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_the_batch_around_a_text_does_not_change_its_vector(minilm: Encoder) -> None:
    ids = Tokenizer(folder.read("minilm")).encode(TEXTS).ids
    together = minilm.encode(ids)
    alone = np.concatenate([minilm.encode([one]) for one in ids])
    assert (together * alone).sum(1).min() > 0.99999


def test_texts_of_all_lengths_in_one_batch_keep_apart(minilm: Encoder) -> None:
    lengths = [1, 2, 5, 5, 15, 16, 17, 31, 32, 33, 47, 64, 65, 100, 256]
    ids = [np.arange(1_000, 1_000 + one, dtype=np.int64) * 7 for one in lengths]
    together = minilm.encode(ids)
    alone = np.concatenate([minilm.encode([one]) for one in ids])
    assert (together * alone).sum(1).min() > 0.99999


def test_batches_of_many_sizes_are_computed_as_few(minilm: Encoder) -> None:
    seen = set()
    assert isinstance(minilm._trunk, Bert)
    for length in range(1, 129):
        seen.add(len(minilm._trunk.forward([np.zeros(length, dtype=np.int64)], [length], None)))
    assert seen == set(range(4, 129, 4))


def test_bf16_stays_within_the_limit(minilm: Encoder) -> None:
    ids = Tokenizer(folder.read("minilm")).encode(TEXTS[:4]).ids
    found = Encoder(folder.read("minilm"), BF16).encode(ids)
    assert (found * minilm.encode(ids)).sum(1).min() >= 0.9995


def test_what_is_cut_is_counted() -> None:
    tokens = Tokenizer(folder.read("minilm")).encode(["short", "long " * 400])
    assert [len(one) for one in tokens.ids] == [3, 256]
    assert tokens.cut == 1


def test_the_name_says_model_and_preparation(tmp_path: Path) -> None:
    path = tiny(tmp_path / "m", transformers.BertConfig(**SMALL), transformers.BertModel)
    name = folder.read(str(path)).name
    assert name.startswith("m-")
    assert folder.read(str(path)).name == name
    (path / "sentence_bert_config.json").write_text('{"max_seq_length": 8}')
    assert folder.read(str(path)).name != name


#: Made in its test: what transformers has of a model takes seconds to load.
PLAIN: dict[str, Callable[[], tuple[transformers.PretrainedConfig, Any]]] = {
    "bert": lambda: (
        transformers.BertConfig(**SMALL, hidden_act="gelu_new"),
        transformers.BertModel,
    ),
    "xlm-roberta": lambda: (
        transformers.XLMRobertaConfig(**SMALL, type_vocab_size=1),
        transformers.XLMRobertaModel,
    ),
    "distilbert": lambda: (
        transformers.DistilBertConfig(
            vocab_size=len(WORDS), dim=32, n_layers=2, n_heads=4, hidden_dim=64
        ),
        transformers.DistilBertModel,
    ),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_a_plain_folder(tmp_path: Path, kind: str) -> None:
    path = tiny(tmp_path / "m", *PLAIN[kind]())
    recipe = folder.read(str(path))
    texts = ["the disk was full", "who", "the deployment was the disk " * 3]
    expected = unit([one.mean(0) for one in reference(path, texts, recipe)])
    assert np.allclose(encoded(path, texts), expected, atol=1e-4)


def test_pooling_dense_limit_and_prefix_of_a_folder_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "m"
    tiny(path / "0_Transformer", transformers.BertConfig(**SMALL), transformers.BertModel)
    said = {
        "modules.json": [
            {"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
            {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"path": "2_Dense", "type": "sentence_transformers.models.Dense"},
            {"path": "3_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "1_Pooling/config.json": {"pooling_mode_cls_token": True},
        "2_Dense/config.json": {"activation_function": "torch.nn.modules.activation.Tanh"},
        "0_Transformer/sentence_bert_config.json": {"max_seq_length": 6, "do_lower_case": True},
        "config_sentence_transformers.json": {
            "prompts": {"q": "who "}, "default_prompt_name": "q"
        },
    }  # fmt: skip
    for name, value in said.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(json.dumps(value))
    weight, bias = torch.randn(5, 32), torch.randn(5)
    save_file({"linear.weight": weight, "linear.bias": bias}, path / "2_Dense/model.safetensors")
    recipe = folder.read(str(path))
    assert (recipe.max_tokens, recipe.poolings, recipe.prefix) == (6, ("cls",), "who ")
    (states,) = reference(path / "0_Transformer", ["The DISK was full full full"], recipe)
    expected = unit([torch.tanh(weight @ states[0] + bias)])
    assert np.allclose(encoded(path, ["The DISK was full full full"]), expected, atol=1e-4)
    assert len(Tokenizer(recipe).encode(["disk"]).ids[0]) == 4


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("max", [3.0, 4.0]), ("lasttoken", [3.0, 1.0]), ("mean_sqrt_len_tokens", [2.828, 3.536]),
     ("weightedmean", [2.333, 2.0])],
)  # fmt: skip
def test_other_poolings(mode: str, expected: list[float]) -> None:
    states = torch.tensor([[1.0, 4.0], [3.0, 1.0]])
    assert torch.allclose(pool(mode, states), torch.tensor(expected), atol=1e-3)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "no config.json"),
        ({"config.json": "{"}, "cannot be read"),
        ({"config.json": '{"model_type": "bert"}'}, "no weights"),
        ({"modules.json": '[{"type": "x.CLIPModel", "path": ""}]'}, "CLIPModel"),
    ],
)
def test_a_folder_that_is_no_model_gives_one_clear_error(
    tmp_path: Path, files: dict[str, str], told: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SettingsError, match=told):
        folder.read(str(tmp_path))


def test_a_name_that_is_no_folder() -> None:
    with pytest.raises(SettingsError, match="neither minilm"):
        folder.read("/nowhere/at/all")
