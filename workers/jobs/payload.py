"""Reading a payload: what it must hold, or an InputError of one sentence."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np
from numpy.typing import NDArray

from base.errors import InputError

TEXTS_MAX = 10_000
TEXT_CHARS = 20_000
NAME_CHARS = 200
DIM_MAX = 65_536
MATRIX_BYTES = 128 * 1024 * 1024


def text(payload: dict[str, Any], key: str, *, longest: int = TEXT_CHARS) -> str:
    """A string that is not empty, at most `longest` characters."""
    found = payload.get(key)
    if not isinstance(found, str) or not found.strip():
        raise InputError(f"{key} must be a text that is not empty")
    if len(found) > longest:
        raise InputError(f"{key} has {len(found):,} characters, the most is {longest:,}")
    return found


def texts(payload: dict[str, Any], key: str = "texts") -> list[str]:
    """1 to TEXTS_MAX strings; the empty one is allowed, it has a score like any other."""
    found = payload.get(key)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InputError(f"{key} must be a list of texts")
    if not 1 <= len(found) <= TEXTS_MAX:
        raise InputError(f"{key} must be 1 to {TEXTS_MAX:,} texts, not {len(found):,}")
    if (longest := max(map(len, found))) > TEXT_CHARS:
        raise InputError(f"one of {key} has {longest:,} characters, the most is {TEXT_CHARS:,}")
    return found


def whole(payload: dict[str, Any], key: str, low: int, high: int) -> int:
    """A whole number from `low` to `high`."""
    found = payload.get(key)
    if not isinstance(found, int) or isinstance(found, bool) or not low <= found <= high:
        raise InputError(f"{key} must be a whole number from {low:,} to {high:,}")
    return found


def rows(payload: dict[str, Any], key: str, dim: int) -> NDArray[np.float32]:
    """Base64 of little-endian float32, row after row of `dim` numbers, at least one; finite."""
    found = payload.get(key)
    if not isinstance(found, str):
        raise InputError(f"{key} must be base64 of float32")
    if len(found) > MATRIX_BYTES // 3 * 4 + 4:
        raise InputError(f"{key} is larger than {MATRIX_BYTES // 2**20} MiB")
    try:
        raw = base64.b64decode(found, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{key} is not base64: {error}") from error
    if not raw or len(raw) % (4 * dim):
        raise InputError(
            f"{key} has {len(raw):,} bytes, which is no number of rows of {dim:,} float32"
        )
    matrix = np.frombuffer(raw, dtype="<f4").reshape(-1, dim).astype(np.float32)
    if not np.isfinite(matrix).all():
        raise InputError(f"{key} holds a number that is not finite")
    return matrix


def matrix(payload: dict[str, Any]) -> NDArray[np.float32]:
    """`matrix` with its `dim`."""
    return rows(payload, "matrix", whole(payload, "dim", 1, DIM_MAX))
