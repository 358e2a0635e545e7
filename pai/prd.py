"""Reading PRD.md of PAI v4.0.3, Algorithm v3.7.0; `pai/record.py` writes ours in the same form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pai import document
from pai.document import Document

KEYS = ("task", "slug", "effort", "phase", "progress", "mode", "started", "updated")
SECTIONS = ("Context", "Criteria", "Decisions", "Verification")
_CRITERION = re.compile(r"- \[( |x|X)\] (ISC-(A-)?[\w.-]+): ?(.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A criterion as the file has it. anti: what must not happen."""

    id: str
    text: str
    passed: bool
    anti: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PrdFile:
    """One PRD.md; `document` holds all of it, also what this class has no word for."""

    document: Document

    @property
    def task(self) -> str:
        return self.document.keys.get("task", "")

    @property
    def slug(self) -> str:
        return self.document.keys.get("slug", "")

    @property
    def phase(self) -> str:
        """Lower case; `complete` when it is done; "" when the file does not say."""
        return self.document.keys.get("phase", "").lower()

    @property
    def effort(self) -> str:
        return self.document.keys.get("effort", "").lower()

    @property
    def started(self) -> datetime | None:
        return moment(self.document.keys.get("started", ""))

    @property
    def updated(self) -> datetime | None:
        return moment(self.document.keys.get("updated", ""))

    @property
    def criteria(self) -> tuple[Line, ...]:
        body = self.document.section("Criteria") or ""
        found = (_CRITERION.match(line.strip()) for line in body.split("\n"))
        return tuple(
            Line(id=one[2], text=one[4].strip(), passed=one[1] != " ", anti=bool(one[3]))
            for one in found
            if one
        )

    @property
    def progress(self) -> str:
        """Counted from the boxes; the key of that name may be behind."""
        criteria = self.criteria
        return f"{sum(one.passed for one in criteria)}/{len(criteria)}"

    def tick(self, ids: Sequence[str], now: datetime) -> PrdFile:
        """With those criteria passed, progress and `updated` brought along; nothing else moves."""
        sections = []
        for section in self.document.sections:
            body = section.body
            if section.title.lower() == "criteria":
                for one in ids:
                    body = re.sub(rf"(?m)^(\s*- )\[ \]( {re.escape(one)}:)", r"\1[x]\2", body)
            sections.append(replace(section, body=body))
        ticked = PrdFile(document=replace(self.document, sections=tuple(sections)))
        stamp = now.astimezone(UTC).isoformat(timespec="seconds")
        changed = ticked.document.put("progress", ticked.progress).put("updated", stamp)
        return PrdFile(document=changed)

    def faults(self) -> tuple[str, ...]:
        """What v4.0.3 would miss in it."""
        keys = self.document.keys
        found = [f"no key {key}" for key in KEYS if key not in keys]
        if self.document.section("Criteria") is None:
            found.append("no section Criteria")
        return tuple(found)


def read(text: str) -> PrdFile:
    """Never fails; see `faults`."""
    return PrdFile(document=document.parse(text))


def moment(text: str) -> datetime | None:
    """A time as PAI writes it: ISO 8601, or `2026-01-12 10:20:30 PST`. Without a zone: UTC."""
    text = text.strip()
    for zone, hours in (("PST", "-08:00"), ("PDT", "-07:00"), ("UTC", "+00:00")):
        text = re.sub(rf" {zone}\Z", hours, text)
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
