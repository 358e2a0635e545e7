"""Pages of a PAI folder (PRD.md, learnings, research, TELOS) as memories, and learnings as such."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Literal, cast

from base.messages import Phase
from pai import document, prd
from pai.passport_rows import clean, decode, own, own_row, shown
from pai.shapes import TEXT_CHARS, Collection, Memory, memory_id

#: A part of a page is about as long as an embedding model sees.
PART_CHARS = 2_000
SHORT_CHARS = 2_000
OWN_KEY = "ai_infra"
LESSON = "## Lesson"
PHASES = {*(one.value for one in Phase), "ALGORITHM"}
_STAMP = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)[-_T]?(\d\d)(\d\d)(\d\d)?")
_LABEL = re.compile(r"(?m)^\*\*(Feedback|Title):\*\* *(\S.*)$")
_TITLE = re.compile(r"(?m)^# +(\S.*)$")
LESSONS = ("lesson", "text", "learning", "context_summary", "summary")
TIMES = ("created_at", "extracted_at", "timestamp", "at")

Outcome = Literal["", "success", "failure"]


def work(text: str, user_id: str, file: str, written: datetime) -> Iterator[Memory]:
    """The sections of one PRD.md, each with the task above it, as neighbours."""
    page = prd.read(text)
    task = page.task or page.document.keys.get("title", "") or PurePosixPath(file).parent.name
    told = [("", page.document.head), *((one.title, one.text) for one in page.document.sections)]
    parts = [
        f"{task}\n{title}: {part}" if title else f"{task}\n{part}"
        for title, body in told
        for part in cut(body, PART_CHARS)
    ]
    extra = {"slug": page.slug, "effort": page.effort, "phase": page.phase}
    if page.criteria:
        extra["progress"] = page.progress
    at = page.started or stamp(PurePosixPath(file).parent.name) or written
    yield from _page(
        parts or [task], user_id, file, at, kind="work", tags=("pai", "prd"), extra=extra,
        tainted=_tainted(page.document.keys),
    )  # fmt: skip


def research(text: str, user_id: str, file: str, written: datetime) -> Iterator[Memory]:
    """What agents brought from outside: tainted, whatever it says."""
    body = document.parse(text)
    parts = list(cut(body.head + "".join(s.heading + s.body for s in body.sections), PART_CHARS))
    at = stamp(PurePosixPath(file).name) or written
    yield from _page(
        parts, user_id, file, at, kind="research", tags=("pai", "research"), tainted=True
    )


def learning(text: str, user_id: str, file: str, written: datetime) -> Iterator[Memory]:
    """A learning as PAI's hooks write it, or as `learning_page` does."""
    page = document.parse(text)
    keys = page.keys
    if OWN_KEY in keys:
        row = decode(keys[OWN_KEY].encode())
        yield own({**row, "text": _lesson(page)}, user_id, (file,))
        return
    body = page.head + "".join(one.heading + one.body for one in page.sections)
    body = "\n".join(line for line in body.split("\n") if line.strip() != document.FENCE)
    label, title = _LABEL.search(body), _TITLE.search(body)
    applies_when = keys.get("applies_when", "") or (
        label[2] if label else title[1] if title else ""
    )
    yield from _page(
        list(cut(body, TEXT_CHARS)),
        user_id,
        file,
        prd.moment(keys.get("timestamp", "")) or stamp(PurePosixPath(file).name) or written,
        collection=Collection.LEARNINGS,
        kind="learning",
        tags=("pai", "learning"),
        tainted="FAILURES" in _parts(file) or _tainted(keys),  # failures quote conversations
        phase=_phase(keys.get("phase", ""), file),
        outcome=_outcome(keys),
        applies_when=applies_when.strip()[:SHORT_CHARS],
        evidence=keys.get("evidence", "")[:SHORT_CHARS],
    )


def _tainted(keys: Mapping[str, str]) -> bool:
    """What our own pages say of themselves: a way out and in again makes nothing trustworthy."""
    return keys.get("tainted", "").strip().lower() == "true"


def learning_json(raw: bytes, user_id: str, file: str, written: datetime) -> Iterator[Memory]:
    """A learning as one JSON object (`Learning/<PHASE>/<id>.json`). Raises ValueError."""
    row = decode(raw)
    lesson = next((clean(row.get(name)) for name in LESSONS if clean(row.get(name))), "")
    if not lesson:
        raise ValueError("no lesson in it")
    times = (prd.moment(clean(row.get(name))) for name in TIMES)
    told = row.get("outcome")
    yield from _page(
        list(cut(lesson, TEXT_CHARS)),
        user_id,
        file,
        next((one for one in times if one), written),
        collection=Collection.LEARNINGS,
        kind="learning",
        tags=("pai", "learning"),
        tainted=row.get("tainted") is True,
        phase=_phase(clean(row.get("phase")), file),
        outcome=cast("Outcome", told) if told in ("success", "failure") else "",
        applies_when=clean(row.get("applies_when"))[:SHORT_CHARS],
        evidence=clean(row.get("evidence"))[:SHORT_CHARS],
    )


def learning_page(memory: Memory) -> tuple[str, str]:
    """Path below MEMORY/LEARNING and text of a learning that PAI can read, and we without loss."""
    at = memory.created_at.astimezone(UTC)
    words = re.findall(r"[a-z0-9]+", memory.text.lower())[:6]
    name = f"{at:%Y-%m-%d-%H%M%S}_LEARNING_{'-'.join(words)[:48] or 'lesson'}-{memory.id[:8]}.md"
    rest = {key: value for key, value in own_row(memory).items() if key != "text"}
    front = {
        "capture_type": "LEARNING",
        "timestamp": at.isoformat(timespec="seconds"),
        "phase": memory.phase,
        "outcome": memory.outcome,
        "applies_when": " ".join(memory.applies_when.split()),
        "evidence": " ".join(memory.evidence.split()),
        "auto_captured": "true",
        OWN_KEY: json.dumps(rest, ensure_ascii=True),
    }
    lines = ["---", *(f"{key}: {value}" for key, value in front.items()), "---", ""]
    title = " ".join(memory.text.split())[:100]
    return f"ALGORITHM/{at:%Y-%m}/{_plain(name)}", "\n".join(
        [*lines, f"# {title}", "", LESSON, "", memory.text.strip(), ""]
    )


def topics(text: str, file: str) -> Mapping[str, str]:
    """What a TELOS file says, by topic in lower case: TELOS.md by its sections, others as one."""
    name = PurePosixPath(file).stem.lower()
    if name != "telos":
        return {name: clean(text)}
    sections = document.parse(text).sections
    return {one.title.lower(): clean(one.text) for one in sections if one.text}


def cut(text: str, most: int) -> Iterator[str]:
    """Parts of at most `most` characters, at blank lines where there are, else lines or words."""
    text = clean(text)
    while len(text) > most:
        room = text[: most + 1]
        places = (room.rfind(mark, most // 4) for mark in ("\n\n", "\n", " "))
        end = next((place for place in places if place > 0), most)
        if part := text[:end].strip():
            yield part
        text = text[end:].strip()
    if text:
        yield text


def stamp(name: str) -> datetime | None:
    """The time that a file or folder of PAI has in its name; taken as UTC."""
    if (found := _STAMP.match(name)) is None:
        return None
    try:
        year, month, day, hour, minute, second = (int(part or 0) for part in found.groups())
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


def _page(parts: list[str], user_id: str, file: str, at: datetime, **rest: Any) -> Iterator[Memory]:
    for number, part in enumerate(parts):
        yield Memory(
            id=memory_id("pai", user_id, file, str(number)),
            user_id=user_id,
            text=part[:TEXT_CHARS],
            source="pai",
            file=shown(file),
            seq=number if len(parts) > 1 else None,
            created_at=at,
            **rest,
        )


def _lesson(page: document.Document) -> str:
    """All that follows the heading: headings of its own do not end a lesson."""
    whole = "".join(one.heading + one.body for one in page.sections)
    return whole.partition(f"{LESSON}\n")[2].strip()


def _parts(file: str) -> list[str]:
    return [part.upper() for part in PurePosixPath(file).parts]


def _phase(told: str, file: str) -> str:
    found = [told.upper(), *_parts(file)]
    return next((one for one in found if one in PHASES), "")


def _outcome(keys: Mapping[str, str]) -> Outcome:
    """What the page says, or what a person's own rating says; a guessed rating says nothing."""
    if keys.get("outcome") in {"success", "failure"}:
        return cast("Outcome", keys["outcome"])
    value = keys.get("rating", "")
    if keys.get("source", "explicit") != "explicit" or not re.fullmatch(r"10|[1-9]", value):
        return ""
    return "failure" if int(value) <= 4 else "success" if int(value) >= 7 else ""


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
