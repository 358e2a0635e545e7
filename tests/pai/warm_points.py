"""Points and looks for the tests of the warm store, and a store to start from."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from pai import words
from pai.warm import Floats, Keep, Look, Point

DIM = 16
MINE = Keep(any_of={"user_id": ["ann", "*"]})
TEXTS = (
    "The printer on the second floor is out of paper again.",
    "Ann likes her tea without sugar and never after four.",
    "The certificate for example.org is renewed by a timer every sixty days.",
    "A deployment on Friday broke the login page for two hours.",
    "Backups are kept for ninety days on the second disk.",
)


def unit(seed: int, dim: int = DIM) -> Floats:
    vector = np.random.default_rng(seed).standard_normal(dim).astype(np.float32)
    return vector / np.float32(np.linalg.norm(vector))


def id_of(number: int) -> str:
    return str(uuid.UUID(int=number))


def point(number: int, user_id: str = "ann", **payload: Any) -> Point:
    text = TEXTS[number % len(TEXTS)]
    return Point(
        id=id_of(number),
        payload={
            "user_id": user_id,
            "kind": "fact",
            "seq": number,
            "tainted": False,
            "created_at": f"2026-01-{number % 28 + 1:02}T12:00:00+00:00",
            "text": text,
            **payload,
        },
        dense={"dense": unit(number)},
        sparse={"words": words.document(text)},
    )


def dense(number: int, limit: int = 10, model: str = "") -> Look:
    return Look(name="dense", vector=unit(number), limit=limit, model=model)


def asked(text: str, limit: int = 10) -> Look:
    return Look(name="words", vector=words.query(text), limit=limit)


def copy_of(store: Path, to: Path) -> Path:
    """A closed store again: its logs are big holes, and making the indexes takes seconds."""
    subprocess.run(["cp", "-a", str(store), str(to)], check=True)
    return to
