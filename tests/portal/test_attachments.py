"""Files for messages: what is taken, whose it is, and how it is given back."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from base import attachments as stored
from base.errors import InputError
from base.messages import Attached
from base.store import Store
from portal import sniff
from tests.portal.conftest import Portal, person, running

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
PDF = b"%PDF-1.4\n1 0 obj << /Type /Page >> endobj\n2 0 obj << /Type /Pages >> endobj\n%%EOF"
PATH = "/api/attachments"


@pytest.fixture
def admin(portal: Portal) -> Iterator[httpx.Client]:
    with portal.admin() as client:
        yield client


def put(client: httpx.Client, name: str, data: bytes) -> httpx.Response:
    return client.post(PATH, params={"name": name}, content=data)


def send(client: httpx.Client, *ids: str, **more: Any) -> httpx.Response:
    made = client.post("/api/conversations", json={}).json()["id"]
    body = {"content": "look", "attachments": list(ids), **more}
    return client.post(f"/api/conversations/{made}/messages", json=body)


@pytest.mark.parametrize(
    ("name", "data", "kind", "media_type"),
    [
        ("a.png", PNG, "image", "image/png"),
        ("photo.txt", b"\xff\xd8\xff\xe0" + bytes(20), "image", "image/jpeg"),
        ("x", b"GIF89a" + bytes(9), "image", "image/gif"),
        ("w.webp", b"RIFF\x10\0\0\0WEBPVP8 ", "image", "image/webp"),
        ("doc", PDF, "pdf", "application/pdf"),
        ("page.html", b"<script>alert(1)</script>", "text", "text/plain"),
        ("picture.png", "über\tund\r\n".encode(), "text", "text/plain"),
        ("drawing.svg", b"<svg onload='x'/>", "text", "text/plain"),
    ],
)
def test_what_it_is_lies_in_its_bytes(name: str, data: bytes, kind: str, media_type: str) -> None:
    found = sniff.sort(data, name)
    assert (found.kind, found.media_type) == (kind, media_type)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("e.txt", b"", "is empty"),
        ("a.zip", b"PK\x03\x04" + bytes(9), "archives are not taken"),
        ("letter.docx", b"PK\x03\x04" + bytes(9), "save it as PDF or text"),
        ("photo.png", b"\x1f\x8b\x08" + bytes(9), "archives are not taken"),
        ("t.tar", bytes(257) + b"ustar", "archives are not taken"),
        ("run", b"\x7fELF\x02\x01", "looks like a program"),
        ("old.txt", "caf\xe9".encode("latin-1"), "UTF-8"),
    ],
)
def test_what_no_model_can_be_given_is_refused(name: str, data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        sniff.sort(data, name)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\a.txt", "a.txt"),
        ("..", "file"),
        ("", "file"),
        (".bashrc", "bashrc"),
        ("a\u202etxt.exe", "atxt.exe"),
        ('q"uote<x>.md', "q uote x .md"),
        ("n\n.txt", "n.txt"),
        ("\ud800.txt", "txt"),
        ("e\u0301.md", "\u00e9.md"),
    ],
)
def test_names_can_stand_anywhere(given: str, kept: str) -> None:
    assert sniff.named(given) == kept


def test_a_long_name_keeps_its_ending() -> None:
    assert sniff.named("x" * 300 + ".py") == "x" * 117 + ".py"


async def test_a_file_is_kept_for_its_owner_alone(
    portal: Portal, store: Store, admin: httpx.Client
) -> None:
    made = put(admin, 'we"ird\r\n name é.png', PNG)
    assert made.status_code == 201, made.text
    assert made.json() == {
        "id": made.json()["id"],
        "name": "we ird name é.png",
        "kind": "image",
        "media_type": "image/png",
        "size_bytes": len(PNG),
    }
    where = f"{PATH}/{made.json()['id']}"
    got = admin.get(where)
    assert got.content == PNG
    assert got.headers["content-type"] == "image/png"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["content-disposition"].startswith('attachment; filename="we ird name _.png"')
    assert got.headers["content-security-policy"] == "default-src 'none'; sandbox"
    row = await store.fetchrow("SELECT * FROM attachments WHERE id = $1", made.json()["id"])
    assert row is not None
    path = portal.settings.attachments / row["storage_path"]
    assert path.name == hashlib.sha256(PNG).hexdigest()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    other = await person(portal, store)
    with portal.client(other.token) as client:
        assert client.get(where).status_code == 404
        assert client.delete(where).status_code == 404
        assert send(client, made.json()["id"]).status_code == 404
    with portal.client() as nobody:
        assert nobody.get(where).status_code == 401
        assert put(nobody, "a.png", PNG).status_code == 401
    page = put(admin, "page.html", b"<script>alert(1)</script>").json()
    got = admin.get(f"{PATH}/{page['id']}")
    assert got.headers["content-type"] == "application/octet-stream"


async def test_a_message_takes_its_files_and_an_edit_shares_them(
    store: Store, admin: httpx.Client
) -> None:
    ids = [put(admin, f"{at}.txt", f"file {at}".encode()).json()["id"] for at in (2, 1)]
    sent = send(admin, *ids)
    assert sent.status_code == 202, sent.text
    where = f"/api/conversations/{sent.json()['conversation_id']}"
    (turn,) = admin.get(f"{where}/branch").json()["turns"]
    assert [file["name"] for file in turn["files"]] == ["2.txt", "1.txt"]
    assert admin.delete(f"{PATH}/{ids[0]}").status_code == 404  # a message has it
    body = {"content": "other words", "attachments": ids, "edits": sent.json()["message_id"]}
    assert admin.post(f"{where}/messages", json=body).status_code == 202
    (turn,) = admin.get(f"{where}/branch").json()["turns"]
    assert [file["name"] for file in turn["files"]] == ["2.txt", "1.txt"]
    assert len(turn["versions"]) == 2
    (before,) = admin.get(f"{where}/branch", params={"at": turn["versions"][0]}).json()["turns"]
    assert [file["id"] for file in before["files"]] == ids
    assert "named twice" in send(admin, ids[0], ids[0]).text
    assert send(admin, str(uuid.uuid4())).status_code == 404
    free = put(admin, "free.txt", b"free").json()["id"]
    row = await store.fetchrow("SELECT storage_path FROM attachments WHERE id = $1", free)
    assert row is not None
    assert admin.delete(f"{PATH}/{free}").status_code == 204
    assert admin.get(f"{PATH}/{free}").status_code == 404


def test_limits_are_those_of_the_file(short_tmp: Any, redis_server: str, portal_dsn: str) -> None:
    limits = (
        "[uploads]\nfiles = '4/minute'\nfile_bytes = 3000\nimage_bytes = 50\ntext_bytes = 2000\n"
        "message_files = 1\nmessage_bytes = 1500\nperson_bytes = 3000\n"
    )
    with (
        running(short_tmp, redis_server, portal_dsn, limited=True, limits=limits) as small,
        small.admin() as client,
    ):
        assert "larger than 3,000 bytes" in put(client, "a.txt", b"x" * 3001).text
        assert "images may have 50" in put(client, "a.png", PNG).text
        large = put(client, "b.txt", b"x" * 1800).json()["id"]
        assert "a message may bring 1,500" in send(client, large).text
        assert "1 file, not 2" in send(client, large, str(uuid.uuid4())).text
        assert "of 3,000" in put(client, "c.txt", b"y" * 1800).text
        assert put(client, "d.txt", b"z").status_code == 429


def test_a_body_without_end_is_cut_off(admin: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(60):
            yield b"a" * 1_000_000

    try:
        answer = admin.post(PATH, params={"name": "a.txt"}, content=endless())
    except httpx.TransportError:
        return  # the connection was closed on us, which is as good
    assert answer.status_code in {413, 422}


def file(path: str, size_bytes: int = 10, kind: Any = "text") -> Attached:
    return Attached(
        id=path, name=path, kind=kind, media_type="text/plain", size_bytes=size_bytes, path=path
    )


def test_what_one_request_carries_is_bounded() -> None:
    many = [file(str(at)) for at in range(30)]
    assert stored.fitting(many) == tuple(many[10:])
    same = [file("a"), file("b"), file("a")]
    assert [one.path for one in stored.fitting(same)] == ["b", "a"]
    large = [file("old"), file("big", 15_000_000), file("new", 9_000_000)]
    assert [one.path for one in stored.fitting(large)] == ["new"]


def test_files_count_for_what_they_are_and_not_for_their_base64(tmp_path: Any) -> None:
    folder = tmp_path / str(uuid.uuid4())
    folder.mkdir()
    made = []
    for kind, media, data in (
        ("image", "image/png", PNG * 9_000),
        ("pdf", "application/pdf", PDF),
        ("text", "text/plain", b"words"),
        ("text", "text/plain", b" \n"),
    ):
        digest = hashlib.sha256(data).hexdigest()
        (folder / digest).write_bytes(data)
        made.append(
            Attached(
                id=digest, name=f"n.{kind}", kind=kind, media_type=media,
                size_bytes=len(data), path=f"{folder.name}/{digest}",
            )
        )  # fmt: skip
    made.append(file(f"{folder.name}/{'0' * 64}"))
    made.append(file("../../etc/passwd"))
    blocks = stored.blocks(tmp_path, made)
    assert [one["type"] for one in blocks] == [
        "text", "image", "document", "document", "text", "text", "text",
    ]  # fmt: skip
    assert blocks[3]["source"] == {"type": "text", "media_type": "text/plain", "data": "words"}
    assert all("no longer there" in one["text"] for one in blocks[5:])
    bare, tokens = stored.weighed([{"role": "user", "content": blocks}])
    assert tokens == stored.IMAGE_TOKENS + stored.PAGE_TOKENS
    assert len(str(bare)) < 2_000


async def test_two_messages_at_once_are_one_line(portal: Portal, admin: httpx.Client) -> None:
    made = admin.post("/api/conversations", json={}).json()["id"]
    where = f"/api/conversations/{made}"
    headers = dict(admin.headers)
    async with httpx.AsyncClient(
        base_url=portal.url, verify=False, headers=headers, timeout=20
    ) as client:
        sent = await asyncio.gather(
            *(client.post(f"{where}/messages", json={"content": str(at)}) for at in range(8))
        )
    assert {one.status_code for one in sent} == {202}
    branch = admin.get(f"{where}/branch").json()
    assert len(branch["turns"]) == 8
    assert [len(turn["versions"]) for turn in branch["turns"]] == [1] * 8
    assert branch["newest"] is True
