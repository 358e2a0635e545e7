"""Rows of PAI's JSON Lines: ratings, reflections, and memories in our own form.

A reader gets one decoded row and gives what it is; what a row cannot be is a ValueError with the
reason. A rating is what a person gave: one that was guessed from the tone stays a guess, and one
that is missing stays missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from pai.prd import moment
from pai.shapes import TEXT_CHARS, Collection, Memory, Signal, SignalKind, memory_id

MIDDLE, REACH = 5.5, 4.5
IMPORTED = "Imported/"
COMMENT_CHARS = 2_000
LINE_BYTES = 1 << 20

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Implicit:
    """A mood that PAI guessed from a message, 1 to 10: no rating, and never used as one.

    guess: None when PAI saw no mood; confidence: 0 to 1, None when not told.
    """

    id: str
    at: datetime
    guess: float | None
    confidence: float | None
    summary: str
    session_id: str

    def row(self) -> Row:
        """As one line of `MEMORY/Signals/sentiment/`."""
        return {
            "id": self.id,
            "timestamp": self.at.isoformat(),
            "source": "implicit",
            "score": None if self.guess is None else round((self.guess - MIDDLE) / REACH, 3),
            "confidence": self.confidence,
            "summary": self.summary,
            "session_id": self.session_id,
        }


def lines(raw: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Each line that is not blank: its number from 1, itself, and how many like it came before."""
    seen: dict[bytes, int] = {}
    for number, whole in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        line = whole.strip()
        if line:
            seen[line] = seen.get(line, -1) + 1
            yield number, line, seen[line]


def decode(line: bytes) -> Row:
    """Raises ValueError."""
    if len(line) > LINE_BYTES:
        raise ValueError(f"longer than {LINE_BYTES:,} bytes")
    try:
        row = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise ValueError("no UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(row, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - a fault like the others
    return row


def _no_constant(name: str) -> None:
    raise ValueError(f"no JSON: {name}")


def clean(text: object) -> str:
    """Text that can be stored, without white space around it; "" for what is no text."""
    return storable(text).strip() if isinstance(text, str) else ""


def storable(text: str) -> str:
    """Without NUL and half surrogate pairs."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def rating(row: Row, user_id: str, key: tuple[str, ...]) -> Signal | Implicit:
    """A row of ratings.jsonl. Without `source` it is explicit, unless it has what only a guess
    has: a confidence or a summary of the mood.
    """
    at = moment(clean(row.get("timestamp")))
    if at is None:
        raise ValueError("no timestamp")
    source = row.get("source")
    if source not in (None, "explicit", "implicit"):
        raise ValueError(f"an unknown source {source!r}")
    guessed = source == "implicit" or (
        source is None and ("confidence" in row or "sentiment_summary" in row)
    )
    given = row.get("rating")
    if guessed and given is None:
        value = None
    elif not isinstance(given, (int, float)) or isinstance(given, bool) or not 1 <= given <= 10:
        raise ValueError("no rating from 1 to 10")
    else:
        value = float(given)
    if guessed:
        confidence = row.get("confidence")
        sure = isinstance(confidence, (int, float)) and 0 <= confidence <= 1
        return Implicit(
            id=memory_id("pai", user_id, *key),
            at=at,
            guess=value,
            confidence=float(confidence) if sure and confidence is not None else None,
            summary=clean(row.get("sentiment_summary"))[:COMMENT_CHARS],
            session_id=clean(row.get("session_id")),
        )
    if value is None or not value.is_integer():
        raise ValueError("an explicit rating is a whole number")
    return _signal(row, user_id, key, at, int(value))


def _signal(row: Row, user_id: str, key: tuple[str, ...], at: datetime, value: int) -> Signal:
    ours = row.get("ai_infra")
    own = ours if isinstance(ours, dict) else {}
    here = own.get("rating") if own.get("scale") == 5 else None
    in_5 = here if type(here) is int and 1 <= here <= 5 else None
    return Signal(
        id=memory_id("pai", user_id, *key),
        kind=SignalKind.USER_RATING,
        user_id=user_id,
        rating=in_5 or value,
        scale=5 if in_5 else 10,
        weight=(in_5 - 3) / 2 if in_5 else (value - MIDDLE) / REACH,
        comment=clean(row.get("comment"))[:COMMENT_CHARS],
        root_id=own.get("root_id") if isinstance(own.get("root_id"), str) else None,
        task_id=own.get("task_id") if isinstance(own.get("task_id"), str) else None,
        at=at,
    )


def rating_row(signal: Signal) -> Row:
    """An explicit rating as a row of ratings.jsonl, 1 to 10; `ai_infra` has what it was here."""
    assert signal.rating is not None
    value = signal.rating
    if signal.scale == 5:  # the ends stay the ends, and the middle does not become PAI's neutral 5
        value = (1, 3, 6, 8, 10)[signal.rating - 1]
    row: Row = {
        "timestamp": signal.at.astimezone(UTC).isoformat(timespec="seconds"),
        "rating": value,
        "session_id": signal.root_id or signal.task_id or "",
        "source": "explicit",
    }
    if signal.comment:
        row["comment"] = signal.comment
    own = {
        "id": signal.id,
        "scale": signal.scale,
        "rating": signal.rating,
        "root_id": signal.root_id,
        "task_id": signal.task_id,
    }
    return row | {"ai_infra": own}


QUESTIONS = (
    ("reflection_q1", "Should have been done differently"),
    ("reflection_q2", "A smarter algorithm would have"),
    ("reflection_q3", "Should have been used"),
    ("reflection_q4", "A better algorithm"),
    ("reflection", "Reflection"),
)


def reflection(
    row: Row, user_id: str, file: str, key: tuple[str, ...], written: datetime
) -> Memory:
    """A row of algorithm-reflections.jsonl as a learning of LEARN. The mood it implies is a guess
    and no outcome; the criteria are counted. `written`: when the file was, if the row tells none.
    """
    answers = [(told, clean(row.get(name))) for name, told in QUESTIONS]
    text = "\n".join(f"{told}: {answer}" for told, answer in answers if answer)
    if not text:
        raise ValueError("no reflection in it")
    counts = [row.get(f"criteria_{name}") for name in ("passed", "failed", "count")]
    passed, failed, count = (one if type(one) is int and one >= 0 else None for one in counts)
    evidence = []
    if passed is not None and count:
        evidence.append(f"{passed} of {count} criteria passed")
    if isinstance(row.get("within_budget"), bool):
        evidence.append("within the time" if row["within_budget"] else "over the time")
    return Memory(
        id=memory_id("pai", user_id, *key),
        collection=Collection.LEARNINGS,
        user_id=user_id,
        text=text[:TEXT_CHARS],
        kind="reflection",
        source="pai",
        file=file,
        tags=("pai", "reflection"),
        phase="LEARN",
        outcome="failure" if failed else "success" if failed == 0 and count else "",
        applies_when=clean(row.get("task_description"))[:COMMENT_CHARS],
        evidence=", ".join(evidence),
        extra={
            name: clean(str(row[name]))[:200]
            for name in ("effort_level", "prd_id", "implied_sentiment")
            if row.get(name) is not None
        },
        created_at=moment(clean(row.get("timestamp"))) or written,
    )


def shown(path: str) -> str:
    """`Memory.file` of what came by import: never the path of a file of our own."""
    return path if path.startswith(IMPORTED) else IMPORTED + path


def own(row: Row, user_id: str, key: tuple[str, ...]) -> Memory:
    """A row that `own_row` made; whoever's it was, it is now that user's."""
    told, given = row.get("id"), _storable(row)
    name = (told,) if isinstance(told, str) else key
    if file := clean(row.get("file")):
        given["file"] = shown(file)
    try:
        return Memory.model_validate(
            {**given, "user_id": user_id, "id": memory_id("pai", user_id, *name)}
        )
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error


def own_row(memory: Memory) -> Row:
    """The whole memory; of whom is not told, the folder is one person's."""
    return memory.model_dump(mode="json", exclude={"user_id"})


def dump(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(key): _storable(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_storable(one) for one in value]
    return value
