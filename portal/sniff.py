"""What a file is, by what is in it; its name says nothing that counts."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from base.errors import InputError

NAME_MAX_CHARS = 120
HEAD_BYTES = 1_024
#: (first bytes, media type, what it is for the model)
SIGNATURES: tuple[tuple[bytes, str, Literal["image", "pdf"]], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png", "image"),
    (b"\xff\xd8\xff", "image/jpeg", "image"),
    (b"GIF87a", "image/gif", "image"),
    (b"GIF89a", "image/gif", "image"),
    (b"%PDF-", "application/pdf", "pdf"),
)
ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ")
OFFICE = {".docx", ".xlsx", ".pptx", ".odt", ".ods", ".odp"}
#: Control characters that texts have.
PLAIN = frozenset("\t\n\r\f\x1b")
TAKEN = "images (PNG, JPEG, WebP, GIF), PDF, and text of any kind: notes, tables, code"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sort:
    """kind: how the model is given it."""

    kind: Literal["image", "pdf", "text"]
    media_type: str


def sort(data: bytes, name: str) -> Sort:
    """Raises InputError for what no model can be given, saying what to do instead."""
    if not data:
        raise InputError(f"{name} is empty")
    for first, media_type, kind in SIGNATURES:
        if data.startswith(first):
            return Sort(kind=kind, media_type=media_type)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Sort(kind="image", media_type="image/webp")
    if PurePath(name).suffix.lower() in OFFICE:
        raise InputError(f"{name}: office files are not taken; save it as PDF or text")
    if data.startswith(ARCHIVES) or data[257:262] == b"ustar":
        raise InputError(f"{name}: archives are not taken; send the files in it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(
            f"{name} is neither an image, a PDF nor UTF-8 text. Taken: {TAKEN}"
        ) from None
    if any(unicodedata.category(char) == "Cc" and char not in PLAIN for char in set(text)):
        raise InputError(f"{name} looks like a program or data file. Taken: {TAKEN}")
    return Sort(kind="text", media_type="text/plain")


def named(name: str) -> str:
    """A name that can stand anywhere: the last part of a path, no control or reordering
    characters, not hidden, at most 120 characters with its ending.
    """
    name = unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode())
    name = name.replace("\\", "/").rpartition("/")[2]
    kept = (" " if char in '"<>:|?*' else char for char in name if char.isprintable())
    name = " ".join("".join(kept).split()).strip(". ")
    if len(name) > NAME_MAX_CHARS:
        end = PurePath(name).suffix[:16]
        name = name[: NAME_MAX_CHARS - len(end)] + end
    return name or "file"
