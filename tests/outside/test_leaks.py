"""What looks like a secret is found wherever in a file it is, and said without being shown."""

from __future__ import annotations

import pytest

from provision import leaks

TOKEN = "ghp_" + "a1B2c3D4e5" * 4
BLOCK = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n" * 20


@pytest.mark.parametrize("lines", [0, 900, 1_590, 1_597, 1_598, 5_000])
@pytest.mark.parametrize("secret", [TOKEN, BLOCK])
def test_where_pieces_meet(lines: int, secret: str) -> None:
    text = "it was fine and will be so, all of this line\n"[:40] + "\n"
    data = (text * lines + secret + "\nend\n" + text * 2_000).encode()
    found = leaks.found("a/b.md", data)
    assert found is not None
    assert found.lines[0] == lines + 1
    assert secret[:20] not in str(found)


def test_what_is_no_text() -> None:
    found = leaks.found("a.bin", b"\x00\xff" * 50_000 + TOKEN.encode() + b"\x00")
    assert str(found) == "a.bin"
    assert leaks.found("a.bin", bytes(range(256)) * 1_000) is None


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("a/.env", True), ("a/.env.local", True), ("server.key", True), ("x/id_ed25519", True),
        ("secrets/a.md", True), ("a/.ssh/config", True), ("dump.sql.gz", True), ("a.db", True),
        ("environment.md", False), ("keys.md", False), ("secret.py", False),
        ("a/monkey.toml", False),
    ],
)  # fmt: skip
def test_names_that_stay(path: str, kept: bool) -> None:
    assert (leaks.kept_back(path) is not None) is kept
