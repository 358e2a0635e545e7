"""Speech for tests: made by espeak-ng, packed as browsers pack it, compared by how it sounds; and
a local server that speaks OpenAI's audio API.
"""

from __future__ import annotations

import io
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray
from present import need

from base import sound

Samples = NDArray[np.float32]
CODECS = {"webm": "libopus", "ogg": "libopus", "mp4": "aac", "wav": "pcm_s16le"}
#: Length of one step of an envelope.
STEP_S = 0.02


def say(text: str, *, before_s: float = 0.0, after_s: float = 0.0) -> bytes:
    """The text as a WAV file, with silence around it."""
    line = [need("espeak-ng"), "--stdin", "--stdout", "-v", "en"]
    said = subprocess.run(line, input=text.encode(), capture_output=True, check=True).stdout
    rate_hz = int.from_bytes(said[24:28], "little")
    pcm = bytes(2 * int(before_s * rate_hz)) + said[44:] + bytes(2 * int(after_s * rate_hz))
    return sound.wav(pcm, rate_hz)


def packed(wav: bytes, name: str) -> bytes:
    """The same as a file of another kind, as MediaRecorder makes them: one track, 48 kHz."""
    import av

    out = io.BytesIO()
    with av.open(io.BytesIO(wav)) as source, av.open(out, "w", format=name) as target:
        track = target.add_stream(CODECS[name], rate=48_000)
        track.layout = "mono"  # type: ignore[attr-defined]
        for frame in source.decode(audio=0):
            for packet in track.encode(frame):  # type: ignore[attr-defined]
                target.mux(packet)
        for packet in track.encode(None):  # type: ignore[attr-defined]
            target.mux(packet)
    return out.getvalue()


def likeness(one: Samples, other: Samples) -> float:
    """1 for two recordings of the same speech, whenever it begins in each: the highest
    correlation of the logarithms of their energy, step by step.
    """
    first, second = _envelope(one), _envelope(other)
    if len(first) < len(second):
        first, second = second, first
    first = np.pad(first, len(second))
    best = 0.0
    for at in range(len(first) - len(second)):
        piece = first[at : at + len(second)]
        if piece.std() > 0:
            best = max(best, float(np.corrcoef(piece, second)[0, 1]))
    return best


def spoken(samples: Samples) -> Samples:
    """Without the silence around it."""
    loud = np.flatnonzero(np.abs(samples) > 0.02)
    return samples[loud[0] : loud[-1] + 1] if loud.size else samples[:0]


def _envelope(samples: Samples) -> NDArray[np.float64]:
    step = int(STEP_S * sound.RATE_HZ)
    whole = samples[: len(samples) // step * step].reshape(-1, step).astype(np.float64)
    return np.asarray(np.log10(np.sqrt((whole**2).mean(axis=1)) + 1e-3) + 3)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a client sent."""

    path: str
    headers: dict[str, str]
    fields: dict[str, Any]
    file: bytes = b""
    file_name: str = ""
    at_s: float = 0.0


@dataclass(kw_only=True)
class Provider:  # mutable: tests set what it does next
    """A server that plays OpenAI's audio API. `hears` is what it answers; `fault` a status and a
    message that it answers instead; `gate` holds its answers back while it is clear.
    """

    url: str = ""
    hears: str = "hello"
    fault: tuple[int, str] | None = None
    requests: list[Request] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def of(self, what: str) -> list[Request]:
        return [one for one in self.requests if one.path.endswith(what)]

    def texts(self) -> list[str]:
        """The sentences that were to be spoken, in the order in which they were asked."""
        return [one.fields["input"] for one in self.of("/speech")]


@contextmanager
def provider() -> Iterator[Provider]:
    playing = Provider()
    playing.gate.set()

    class Play(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Silent."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            asked = _parsed(self.path, dict(self.headers.items()), body)
            playing.requests.append(asked)
            playing.gate.wait(20)
            if playing.fault:
                status, message = playing.fault
                self._answer(status, "application/json", _json({"error": {"message": message}}))
            elif self.path.endswith("/audio/transcriptions"):
                self._answer(200, "application/json", _json({"text": playing.hears}))
            elif self.path.endswith("/audio/speech"):
                self._answer(200, "audio/wav", say(asked.fields["input"]))
            else:
                self._answer(404, "application/json", _json({"error": {"message": "no such path"}}))

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Play)
    playing.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield playing
    playing.gate.set()
    server.shutdown()
    server.server_close()
    thread.join(10)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _parsed(path: str, headers: dict[str, str], body: bytes) -> Request:
    lower = {name.lower(): value for name, value in headers.items()}
    kind = lower.get("content-type", "")
    if kind.startswith("application/json"):
        return Request(path=path, headers=lower, fields=json.loads(body), at_s=time.monotonic())
    head = f"Content-Type: {kind}\r\n\r\n".encode()
    fields: dict[str, Any] = {}
    data, name = b"", ""
    for part in BytesParser().parsebytes(head + body).walk():
        if part.is_multipart():
            continue
        told = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        if part.get_filename():
            data, name = content, str(part.get_filename())
        else:
            fields[str(told)] = content.decode()
    return Request(
        path=path, headers=lower, fields=fields, file=data, file_name=name, at_s=time.monotonic()
    )
