"""Voice over REST: what arrives at the provider, what is refused and how, whose recordings."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import httpx
import pytest

from base import secrets_files, sound, streams
from base.bus import Bus
from base.messages import ModelCall, decode
from base.store import Store
from supervisor import tally
from tests import voice_rig
from tests.portal.conftest import Portal, person
from tests.portal.voice_portal import KEY, talking
from tests.voice_rig import Provider

MODELS = {
    "AI_INFRA_TRANSCRIPTION_MODEL": "whisper-x",
    "AI_INFRA_SPEECH_MODEL": "tts-x",
    "AI_INFRA_SPEECH_VOICE": "nova",
}
Talking = tuple[Portal, Provider]


@pytest.fixture(scope="module")
def talks(short_tmp: object, redis_server: str, portal_dsn: str) -> Iterator[Talking]:
    with talking(short_tmp, redis_server, portal_dsn, **MODELS) as started:  # type: ignore[arg-type]
        yield started


@pytest.fixture
def played(talks: Talking) -> Provider:
    provider = talks[1]
    provider.requests.clear()
    provider.fault, provider.hears = None, " What was said. "
    return provider


@pytest.fixture
def client(talks: Talking) -> Iterator[httpx.Client]:
    with talks[0].admin() as opened:
        yield opened


@pytest.fixture(scope="module")
def speech() -> bytes:
    return voice_rig.packed(voice_rig.say("Count the words."), "webm")


def test_a_recording_becomes_text(client: httpx.Client, played: Provider, speech: bytes) -> None:
    for name in ("webm", "ogg", "mp4", "wav"):
        packed = voice_rig.packed(speech, name)
        headers = {"content-type": "application/octet-stream"}  # its first bytes count, not this
        answer = client.post("/api/voice/transcriptions", content=packed, headers=headers)
        heard = answer.json()
        assert answer.status_code == 200, heard
        assert (heard["text"], heard["provider"]) == ("What was said.", "openai")
        assert heard["ms"] >= 0
        assert heard["seconds_s"] == pytest.approx(sound.measure_s(packed), abs=0.01)
        asked = played.requests[-1]
        assert (asked.file, asked.file_name) == (packed, f"recording.{name}")
        assert asked.fields == {"model": "whisper-x", "response_format": "json"}
        assert asked.headers["authorization"] == f"Bearer {KEY}"
    client.post("/api/voice/transcriptions?language=de", content=speech)
    assert played.requests[-1].fields["language"] == "de"


def test_pieces_of_a_recording_become_one(
    client: httpx.Client, played: Provider, speech: bytes
) -> None:
    where = f"/api/voice/recordings/{uuid.uuid4()}"
    for at in range(0, len(speech), 5_000):
        sent = client.put(f"{where}?at={at}", content=speech[at : at + 5_000])
        assert sent.json() == {"received_bytes": min(at + 5_000, len(speech))}
    gap = client.put(f"{where}?at={len(speech) + 1}", content=b"x")
    assert gap.status_code == 409
    played.fault = (503, "not now")
    assert client.post(f"{where}/transcription").status_code == 502
    played.fault = None
    assert client.post(f"{where}/transcription").json()["text"] == "What was said."
    assert played.requests[-1].file == speech
    assert client.post(f"{where}/transcription").status_code == 404  # used up


async def test_a_recording_is_its_owners(
    talks: Talking, played: Provider, speech: bytes, store: Store
) -> None:
    portal = talks[0]
    where = f"/api/voice/recordings/{uuid.uuid4()}"
    ann, bob = [await person(portal, store) for _ in range(2)]
    with portal.client(ann.token) as hers, portal.client(bob.token) as his:
        assert hers.put(f"{where}?at=0", content=speech).status_code == 200
        assert his.post(f"{where}/transcription").status_code == 404
        assert his.delete(where).status_code == 204
        assert hers.post(f"{where}/transcription").status_code == 200
    with portal.client() as nobody:
        for method, path in (
            ("GET", "/api/voice"),
            ("POST", "/api/voice/transcriptions"),
            ("PUT", f"{where}?at=0"),
            ("POST", f"{where}/transcription"),
            ("DELETE", where),
            ("POST", "/api/voice/speech"),
        ):
            assert nobody.request(method, path, content=b"x").status_code == 401


def test_what_is_no_recording_is_refused_before_anybody_hears_it(
    client: httpx.Client, played: Provider
) -> None:
    for content, status, said in (
        (b"", 422, "there is no recording in the request"),
        (b"#EXTM3U\nhttp://x/", 422, "webm, ogg, wav and mp4 can"),
        (b"OggS" + bytes(500), 422, "damaged"),
        (sound.wav(bytes(2 * 8_000 * 301), 8_000), 422, "longer than 5 minutes"),
        (bytes(sound.LARGEST_BYTES + 1), 413, "larger than 10,000,000 bytes"),
    ):
        answer = client.post("/api/voice/transcriptions", content=content)
        assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    where = f"/api/voice/recordings/{uuid.uuid4()}"
    assert client.put(f"{where}?at=0", content=bytes(1_000_001)).status_code == 413
    assert client.put(f"{where}?at=-1", content=b"x").status_code == 422
    assert client.put(f"{where}?at=0", content=b"").status_code == 422
    assert client.post("/api/memory", content=bytes(1_000_001)).status_code == 413
    assert played.requests == []


def test_a_sentence_becomes_sound_once(client: httpx.Client, played: Provider) -> None:
    text = f"Sentence {uuid.uuid4().hex[:6]} is spoken."
    found = [client.post("/api/voice/speech", json={"text": text}) for _ in range(2)]
    assert [one.headers["content-type"] for one in found] == ["audio/wav"] * 2
    assert found[0].content == found[1].content == voice_rig.say(text)
    (asked,) = played.of("/audio/speech")
    told = {"model": "tts-x", "voice": "nova", "input": text, "response_format": "mp3"}
    assert asked.fields == told
    for body, said in (
        ({"text": " "}, "nothing in it"),
        ({"text": "x" * 1_001}, "at most 1000"),
        ({"text": "Hello", "language": "../x"}, "language"),
        ({"text": "Hello", "voice": "x"}, "voice"),
    ):
        refused = client.post("/api/voice/speech", json=body)
        assert (refused.status_code, said in refused.text) == (422, True), refused.text


async def test_what_a_provider_hears_and_speaks_is_counted(
    client: httpx.Client, played: Provider, speech: bytes, talks: Talking, store: Store, bus: Bus
) -> None:
    prices = talks[0].settings.config / "models.toml"
    prices.write_text(
        "[voices.whisper-x]\nminute_usd = 0.6\n[voices.tts-x]\nmillion_chars_usd = 1000.0\n"
    )
    before = {one for one, _ in await calls(bus)}
    text = f"A sentence of {uuid.uuid4().hex}."
    for _ in range(2):  # the second comes from memory, and is not charged
        assert client.post("/api/voice/speech", json={"text": text}).status_code == 200
    heard = client.post("/api/voice/transcriptions", content=speech).json()
    played.fault = (500, "broken")
    assert client.post("/api/voice/transcriptions", content=speech).status_code == 502
    prices.unlink()
    told = [call for one, call in await calls(bus) if one not in before]
    assert [(one.purpose, one.model, one.provider) for one in told] == [
        ("speak", "tts-x", "127.0.0.1"),
        ("hear", "whisper-x", "127.0.0.1"),
    ]
    for one in told:
        assert await tally.add_usage(store, one)
    rows = client.get("/api/usage/daily", params={"agent": "voice"}).json()["usage"]
    found = {row["model"]: row["cost_usd"] for row in rows}
    assert found["tts-x"] == pytest.approx(len(text) / 1_000)
    assert found["whisper-x"] == pytest.approx(heard["seconds_s"] / 100, abs=1e-4)


async def calls(bus: Bus) -> list[tuple[bytes, ModelCall]]:
    """The model calls that were told to the supervisor, by their place on the stream."""
    rows = (await bus.call(("XRANGE", streams.USAGE, "-", "+")))[0] or []
    return [(place, ModelCall.model_validate(decode(fields[1]).payload)) for place, fields in rows]


def test_a_provider_that_fails_is_said_in_words_and_the_key_never(
    client: httpx.Client, played: Provider, speech: bytes, talks: Talking
) -> None:
    for fault, said in (
        ((401, f"Incorrect API key: {KEY}"), "does not accept the key; set it again: ai-infra"),
        ((429, "You exceeded your quota"), "127.0.0.1 refused (429): You exceeded your quota"),
        ((400, f"the key {KEY} is for something else"), "127.0.0.1 refused (400): the key"),
        ((500, ""), "127.0.0.1 refused (500)"),
        ((302, "elsewhere"), "refused (302)"),
    ):
        played.fault = fault
        for answer in (
            client.post("/api/voice/transcriptions", content=speech),
            client.post("/api/voice/speech", json={"text": f"Not {fault[0]} spoken yet."}),
        ):
            assert (answer.status_code, said in answer.json()["detail"]) == (502, True), answer.text
            assert KEY not in answer.text
    played.fault = None
    secrets_files.remove(talks[0].settings.secrets, "openai-api-key")
    try:
        assert client.post("/api/voice/transcriptions", content=speech).status_code == 200
        assert "authorization" not in played.requests[-1].headers  # a server of one's own
    finally:
        secrets_files.put(talks[0].settings.secrets, "openai-api-key", KEY)


def test_who_does_it_and_who_does_not(talks: Talking, portal: Portal) -> None:
    with talks[0].admin() as client:
        offers = client.get("/api/voice").json()
    assert offers["speech_to_text"] == {
        "provider": "openai", "title": "127.0.0.1", "ready": True, "note": "",
    }  # fmt: skip
    assert offers["longest_s"] == 300
    with portal.admin() as client:
        offers = client.get("/api/voice").json()
        assert offers["speech_to_text"]["provider"] == "browser"
        assert "OpenAI: ai-infra secrets set openai-api-key" in offers["speech_to_text"]["note"]
        wav = voice_rig.say("Hello")
        refused = client.post("/api/voice/transcriptions", content=wav)
    assert refused.status_code == 409
    assert "nothing here can hear" in refused.json()["detail"]


def test_pages_may_use_the_microphone_and_nobody_elses_may(talks: Talking) -> None:
    with talks[0].client() as client:
        for path in ("/login", "/api/health/live", "/static/voice.js"):
            policy = client.get(path).headers["permissions-policy"]
            assert "microphone=(self)" in policy
            assert "camera=()" in policy
