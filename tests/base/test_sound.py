"""Recordings: sniffed, measured and decoded as browsers make them; refused in words."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from base import sound
from base.errors import InputError
from tests import voice_rig

SENTENCE = "The quick brown fox jumps over the lazy dog, and then it sleeps."


@pytest.fixture(scope="module")
def speech() -> bytes:
    return voice_rig.say(SENTENCE, before_s=0.3)


@pytest.mark.parametrize("name", ["webm", "ogg", "mp4", "wav"])
def test_what_was_packed_sounds_as_it_did(speech: bytes, name: str) -> None:
    clip = sound.clip(voice_rig.packed(speech, name))
    source = sound.decode(speech)
    found = sound.decode(clip.data)
    assert clip.kind.name == name
    assert clip.seconds_s == pytest.approx(len(source) / sound.RATE_HZ, abs=0.1)
    assert len(found) == pytest.approx(len(source), abs=0.1 * sound.RATE_HZ)
    assert voice_rig.likeness(found, source) > 0.95
    other = sound.decode(voice_rig.say("Something else was said here, about cats, not dogs."))
    assert voice_rig.likeness(found, other) < 0.8


def test_stereo_becomes_one_channel() -> None:
    left = (0.5 * 32_767 * np.sin(np.arange(8_000) * 0.2)).astype("<i2")
    both = np.stack([left, np.zeros_like(left)], axis=1).tobytes()
    head = bytearray(sound.wav(both, 8_000))
    head[22:24], head[28:32], head[32:34] = b"\2\0", struct.pack("<I", 32_000), b"\4\0"
    found = sound.decode(bytes(head))
    assert len(found) == pytest.approx(sound.RATE_HZ, abs=50)
    assert 0.1 < np.abs(found).max() < 0.6


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no recording that can be read"),
        (b"#EXTM3U\nfile:///etc/passwd\n", "no recording that can be read"),
        (b"<html>" + bytes(200), "no recording that can be read"),
        (b"OggS" + bytes(200), "damaged"),
        (b"\x1a\x45\xdf\xa3" + b"webm" + bytes(200), "damaged"),
        (sound.wav(b"", 16_000), "no sound"),
    ],
)
def test_what_is_no_recording_is_said(data: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        sound.clip(data)


def test_a_picture_in_the_container_of_sound_is_refused() -> None:
    import io

    import av

    out = io.BytesIO()
    with av.open(out, "w", format="webm") as target:
        track = target.add_stream("libvpx", rate=1)
        track.width = track.height = 16  # type: ignore[attr-defined]
        track.pix_fmt = "yuv420p"  # type: ignore[attr-defined]
        frame = av.VideoFrame(16, 16, "yuv420p")
        for packet in (*track.encode(frame), *track.encode(None)):  # type: ignore[attr-defined]
            target.mux(packet)
    with pytest.raises(InputError, match="no sound"):
        sound.clip(out.getvalue())


def test_five_minutes_are_taken_and_no_more() -> None:
    quiet = sound.wav(bytes(2 * 8_000 * 299), 8_000)
    assert sound.clip(quiet).seconds_s == pytest.approx(299)
    for look in (sound.clip, sound.decode):
        with pytest.raises(InputError, match="longer than 5 minutes"):
            look(sound.wav(bytes(2 * 8_000 * 302), 8_000))
    with pytest.raises(InputError, match="larger than 10,000,000 bytes"):
        sound.clip(bytes(sound.LARGEST_BYTES + 1))
