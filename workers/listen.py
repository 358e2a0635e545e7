"""The service `listen`: a recording in, its words out, by a Whisper of a folder on this machine.

transformers does the hearing, up to 30 s at once and longer ones piece by piece as Whisper's own
timestamps say; PyAV reads the recording. One recording at a time is computed, on all cores or
the GPU.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from base import log, sound
from base.deadline import Deadline
from base.errors import InputError, NoAnswerError, SettingsError
from base.settings import Settings
from workers.batch import Core, Work
from workers.device import Device
from workers.folder import check_whisper

CONCURRENCY = 4
#: What Whisper hears at once.
WINDOW_S = 30
#: A whole recording below this is silence; Whisper would make up words for it.
SILENT = 0.002
LATE = "the recording was not written down in time"

logger = log.get("listen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """One recording to be heard: samples of -1 to 1 at 16 kHz. `language`: ISO 639, or empty."""

    samples: NDArray[np.float32]
    language: str
    deadline: Deadline


class Whisper:
    """A model of a folder, loaded. Blocks; used on the compute thread alone."""

    def __init__(self, folder: Path, device: Device) -> None:
        """Raises SettingsError for a folder that is no Whisper."""
        from transformers import WhisperForConditionalGeneration, WhisperProcessor
        from transformers.utils import logging

        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        check_whisper(folder)
        try:
            self._processor: Any = WhisperProcessor.from_pretrained(folder, local_files_only=True)
            model: Any = WhisperForConditionalGeneration.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=device.torch_dtype
            )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise SettingsError([f"whisper_model: {folder} cannot be loaded: {error}"]) from error
        self._model = model.to(device.torch_device).eval()
        self._device = device
        config = self._model.generation_config
        tongues = getattr(config, "lang_to_id", None) or {}
        self.languages = sorted(re.sub(r"[<|>]", "", tongue) for tongue in tongues)
        self._choosable = bool(tongues) and getattr(config, "is_multilingual", False)

    def hear(self, spoken: Spoken) -> str:
        """Raises InputError for an unknown language, NoAnswerError past the deadline."""
        if spoken.language and self._choosable and spoken.language not in self.languages:
            raise InputError(f"the model knows no language {spoken.language!r}")
        if not spoken.samples.size or float(np.abs(spoken.samples).max()) < SILENT:
            return ""
        long = spoken.samples.size > WINDOW_S * sound.RATE_HZ
        told = self._processor(
            spoken.samples,
            sampling_rate=sound.RATE_HZ,
            return_tensors="pt",
            return_attention_mask=True,
            **({"truncation": False, "padding": "longest"} if long else {}),
        )
        device = self._device
        asked: dict[str, Any] = {"return_timestamps": long}
        if self._choosable:
            asked |= {"task": "transcribe", "language": spoken.language or None}

        def goes_on(_: torch.Tensor) -> None:
            if spoken.deadline.passed:
                raise NoAnswerError(LATE)

        with torch.inference_mode():
            ids = self._model.generate(
                told.input_features.to(device.torch_device, device.torch_dtype),
                attention_mask=told.attention_mask.to(device.torch_device),
                monitor_progress=goes_on,
                **asked,
            )
        return str(self._processor.batch_decode(ids, skip_special_tokens=True)[0]).strip()


class Listen:
    """Answers requests. Make it with `open`, which returns when the model is warm."""

    def __init__(self, whisper: Whisper, name: str, core: Core, device: Device) -> None:
        self.name = name
        self._device = device
        self._languages = whisper.languages
        self._work: Work[Spoken, str] = core.work(
            "listen",
            lambda some: [whisper.hear(one) for one in some],
            budget_tokens=lambda: 1,
            padded=False,
        )

    @classmethod
    async def open(cls, settings: Settings, core: Core, device: Device) -> Listen:
        """Raises SettingsError without a folder, or for one that is no Whisper."""
        folder = settings.whisper_model
        if folder is None:
            raise SettingsError(["whisper_model names no folder; fetch one: ai-infra voice pull"])

        def load() -> Whisper:
            device.share(1)
            whisper = Whisper(folder, device)
            hum = np.full(sound.RATE_HZ, 2 * SILENT, dtype=np.float32)
            whisper.hear(Spoken(samples=hum, language="", deadline=Deadline.after(600.0)))
            return whisper

        return cls(await core.call(load), folder.name, core, device)

    async def answer(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Raises InputError for a request that cannot be, NoAnswerError when it took too long."""
        match payload.get("verb"):
            case "hear":
                return await self._hear(payload)
            case "info":
                return self.info()
            case verb:
                raise InputError(f"listen has no verb {verb!r}; there are: hear, info")

    def info(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "device": self._device.name,
            "dtype": self._device.dtype,
            "languages": self._languages,
            "recordings": self._work.items,
            "waiting": len(self._work.waiting),
            "ready": True,
        }

    async def _hear(self, payload: dict[str, Any]) -> dict[str, Any]:
        audio, language = payload.get("audio"), payload.get("language") or ""
        limit_s = payload.get("seconds_s")
        if not isinstance(audio, str) or not isinstance(language, str):
            raise InputError("audio must be base64, language a string")
        if not isinstance(limit_s, int | float):
            raise InputError("seconds_s must say how long the asker waits")
        deadline = Deadline.after(float(limit_s))
        try:
            data = base64.b64decode(audio, validate=True)
        except binascii.Error as error:
            raise InputError("audio is no base64") from error
        samples = await asyncio.to_thread(sound.decode, data)
        spoken = Spoken(samples=samples, language=language, deadline=deadline)
        (text,) = await self._work.submit([spoken], [1])
        return {
            "text": text,
            "model": self.name,
            "seconds_s": round(len(samples) / sound.RATE_HZ, 2),
        }
