"""Recorded sound: what a file is, how long it lasts, its samples at 16 kHz.

PyAV carries the codecs, so no ffmpeg need be installed. Its readers are many and some follow
references to other files; only the one that the first bytes name is ever opened. Loads PyAV when
first used; everything here blocks, so an event loop calls it in a thread.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from base.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from av.container import InputContainer
    from numpy.typing import NDArray

RATE_HZ = 16_000
#: The longest recording that is taken, and its largest file.
LONGEST_S = 300.0
LARGEST_BYTES = 10_000_000
TAKEN = "webm, ogg, wav and mp4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A container. `name`: its usual file extension; `reader`: PyAV's name for what reads it."""

    name: str
    reader: str

    @property
    def media_type(self) -> str:
        return f"audio/{self.name}"


KINDS = {
    kind.name: kind
    for kind in (
        Kind(name="webm", reader="matroska"),
        Kind(name="ogg", reader="ogg"),
        Kind(name="wav", reader="wav"),
        Kind(name="mp4", reader="mp4"),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A recording that was looked at."""

    data: bytes
    kind: Kind
    seconds_s: float


def clip(data: bytes) -> Clip:
    """Look at a recording. Raises InputError as `measure_s` does, and when it is too large."""
    if len(data) > LARGEST_BYTES:
        raise InputError(f"the recording is larger than {LARGEST_BYTES:,} bytes")
    return Clip(data=data, kind=sniff(data), seconds_s=measure_s(data))


def sniff(data: bytes) -> Kind:
    """What the first bytes say. Raises InputError when it is none of the kinds taken."""
    found = ""
    if data[:4] == b"\x1a\x45\xdf\xa3" and (b"webm" in data[:64] or b"matroska" in data[:64]):
        found = "webm"
    elif data[:4] == b"OggS":
        found = "ogg"
    elif data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        found = "wav"
    elif data[4:8] == b"ftyp":
        found = "mp4"
    if not found:
        raise InputError(f"this is no recording that can be read; {TAKEN} can")
    return KINDS[found]


def measure_s(data: bytes) -> float:
    """Seconds from the start to the end of the last packet; nothing is decoded.

    Raises InputError for what is no sound, is damaged, or is longer than LONGEST_S.
    """
    end_s = 0.0
    with _opened(data) as (container, stream):
        for packet in container.demux(stream):
            if packet.pts is not None and packet.time_base is not None:
                end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            _within(end_s)
    if end_s <= 0:
        raise InputError("there is no sound in the recording")
    return end_s


def decode(data: bytes) -> NDArray[np.float32]:
    """Samples of one channel at RATE_HZ, -1 to 1. Raises InputError as `measure_s` does."""
    import numpy as np
    from av import AudioResampler

    parts: list[NDArray[np.float32]] = []
    samples = 0
    resampler = AudioResampler(format="flt", layout="mono", rate=RATE_HZ)
    with _opened(data) as (container, stream):
        for frame in _and_end(container.decode(stream)):
            for piece in resampler.resample(frame):
                parts.append(piece.to_ndarray().reshape(-1).astype(np.float32, copy=False))
                samples += len(parts[-1])
            _within(samples / RATE_HZ)  # a packet may hold more than it says
    if not samples:
        raise InputError("there is no sound in the recording")
    return np.concatenate(parts)


def spoken_type(data: bytes, told: str) -> str:
    """The media type of what a provider says it sent as `told`; the first bytes know better."""
    if data[:4] == b"RIFF":
        return "audio/wav"
    if data[:3] == b"ID3" or (data[:1] == b"\xff" and data[1:2] >= b"\xe0"):
        return "audio/mpeg"
    return "audio/ogg" if data[:4] == b"OggS" else told


def wav(pcm: bytes, rate_hz: int) -> bytes:
    """16-bit samples of one channel as a WAV file."""
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + len(pcm), b"WAVE", b"fmt ", 16, 1, 1, rate_hz, rate_hz * 2, 2, 16),
        *(b"data", len(pcm)),
    )
    return head + pcm


def _within(seconds_s: float) -> None:
    if seconds_s > LONGEST_S:
        raise InputError(f"the recording is longer than {LONGEST_S / 60:g} minutes")


def _and_end(frames: Iterator[Any]) -> Iterator[Any]:
    """The resampler gives its rest for None."""
    yield from frames
    yield None


@contextmanager
def _opened(data: bytes) -> Iterator[tuple[InputContainer, Any]]:
    import av

    kind = sniff(data)
    try:
        with av.open(io.BytesIO(data), mode="r", format=kind.reader) as container:
            stream = next(iter(container.streams.audio), None)
            if stream is None:
                raise InputError("there is no sound in the recording")
            yield container, stream
    except av.FFmpegError as error:
        raise InputError(f"the recording is damaged: {error.strerror or error}") from error
