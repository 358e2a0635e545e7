"""A Whisper with random weights, saved to disk as the real ones are. It hears nothing right."""

from __future__ import annotations

from pathlib import Path

LANGUAGES = ("en", "de")
MARKS = (
    "<|endoftext|>", "<|startoftranscript|>", *(f"<|{name}|>" for name in LANGUAGES),
    "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>",
    "<|notimestamps|>",
)  # fmt: skip


def save(folder: Path, *, max_tokens: int = 8) -> None:
    """A Whisper that says at most `max_tokens` a window, letters and nothing else."""
    import torch
    from tokenizers import AddedToken
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    letters = {letter: at for at, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = WhisperTokenizer(vocab=letters, merges=[])
    tokenizer.add_tokens(list(MARKS), special_tokens=True)
    times = [AddedToken(f"<|{at * 0.02:.2f}|>", special=False) for at in range(1501)]
    tokenizer.add_tokens(times)
    ids = {mark: tokenizer.convert_tokens_to_ids(mark) for mark in MARKS}
    end = ids["<|endoftext|>"]
    config = WhisperConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, max_target_positions=64,
        decoder_start_token_id=ids["<|startoftranscript|>"], eos_token_id=end, bos_token_id=end,
        pad_token_id=end,
    )  # fmt: skip
    torch.manual_seed(7)
    model = WhisperForConditionalGeneration(config)
    asked = model.generation_config
    asked._from_model_config = False
    quiet = [at for letter, at in letters.items() if not (letter.isascii() and letter.isalpha())]
    told = {
        "max_length": max_tokens + 4,
        "suppress_tokens": quiet,
        "begin_suppress_tokens": [end],
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "max_initial_timestamp_index": 50,
        "is_multilingual": True,
        "lang_to_id": {f"<|{name}|>": ids[f"<|{name}|>"] for name in LANGUAGES},
        "task_to_id": {"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
    }
    for name, value in told.items():
        setattr(asked, name, value)
    with torch.no_grad():  # of themselves the marks and times are never the likeliest
        model.get_input_embeddings().weight[len(letters) :] = 0
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
