"""HTML of the backups page: a snapshot, how the last of each went, what a restore left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html import escape

from base.backup import plan
from base.backup.record import Proof, Restore
from portal.backups import Backups, Progress, Snapshot
from portal.pages import parts
from portal.pages.marks import shown
from portal.pages.rows import long

#: So long a restore that went well stands above everything.
NEWS = timedelta(days=1)
WORDS = {"backup": "Backing up", "verify": "Checking the backups", "restore": "Restoring"}
DOES = {"backup": "made", "check": "checked"}


def row(one: Snapshot) -> str:
    """One snapshot: when, how large, what it holds."""
    held = plan.held(one.counts)
    told = [f"<code>{escape(one.id)}</code>"]
    told += [parts.size(one.size_bytes)] if one.size_bytes is not None else []
    told += [f"version {escape(one.version)}", f"on {escape(one.host)}"]
    return shown(
        f"<h3>{parts.when(one.at)} <small>{parts.when(one.at, ago=True)}</small></h3>"
        f"<p>{' · '.join(told)}</p>" + (f"<p>{held}</p>" if held else "")
    )


def step(now: Progress, *, busy: bool) -> str | None:
    """What is being done, in one line; None: nothing. busy: root says that something is."""
    work, kept = now.work, now.restored
    if work is not None and work.state == "running":
        about = f" {work.snapshot}" if work.snapshot else ""
        return f"{WORDS[work.kind]}{about}: {work.step or 'asking the server'}"
    if kept is not None and kept.ended_at is None and busy:
        return f"Restoring {kept.snapshot}: {kept.step}"
    return "A backup or restore is at work" if busy else None


def notice(now: Progress, *, busy: bool) -> str:
    """What has to be known before anything else."""
    work, kept = now.work, now.restored
    said = ""
    if work is not None and work.state == "failed":
        what = {"backup": "The backup", "verify": "The check", "restore": "The restore"}[work.kind]
        if work.kind != "restore" or kept is None or kept.begun_at < work.begun_at:
            said += _bad(f"<b>{what} failed.</b> {escape(work.problem or '')}")
    goes_on = busy or (work is not None and work.state == "running")
    if kept is not None and not (kept.ended_at is None and goes_on):
        said += _restored(kept)
    return shown(said)


def facts(now: Progress, found: Backups | None) -> str:
    """Where, when, how many, and how the last of each went."""
    told: dict[str, str] = {}
    if found is not None:
        near = found.place.startswith("/")
        told["Where"] = f"<code>{escape(found.place)}</code>" + (
            "<small>A folder of this machine helps against mistakes, not against a dead disk."
            " Another place: <code>backup.toml</code>.</small>"
            if near
            else ""
        )
        told["When"] = _when(found)
        keep = found.keep
        told["Kept"] = (
            f"all of the last day, {keep.daily} daily, {keep.weekly} weekly, {keep.monthly} monthly"
        )
    last = now.last
    told["Last backup"] = "none yet"
    if last is not None:
        told["Last backup"] = (
            f"<code>{escape(last.snapshot)}</code> {parts.when(last.at)}, in {long(last.took_s)}"
        )
        if last.problem:
            told["Last backup"] += f"{_fault('the try after it failed: ' + last.problem)}"
    local = found is None or found.local
    told["Last check"] = _proof(now.verified, "sound", "never: press “Check”")
    told["Last drill"] = _proof(
        now.drilled,
        "restored, and at work",
        f"never; on the server: <code>{'' if local else 'sudo '}ai-infra backup drill</code>",
    )
    if now.restored is not None and now.restored.ended_at is not None:
        kept = now.restored
        word = parts.pill("failed", "bad") if kept.problem else parts.pill("done", "good")
        told["Last restore"] = (
            f"{word} {parts.when(kept.ended_at)}, <code>{escape(kept.snapshot)}</code>"
        )
    if found is not None:
        told["The key"] = (
            f"<code>{escape(found.key)}</code><small><b>Keep a copy somewhere else:</b> without it"
            " no backup can be read, by anybody.</small>"
        )
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in told.items())
    return shown(f"<dl>{rows}</dl>")


def _when(found: Backups) -> str:
    if found.local:
        return (
            "nothing runs by itself here; a line in your crontab does:"
            " <code>17 3 * * * ai-infra backup create</code>"
        )
    if not found.timers:
        return "the timers are not there: <code>systemctl status ai-backup.timer</code>"
    said = []
    for one in found.timers:
        at = f"next {parts.when(one.next_at)}" if one.next_at else ""
        if not one.active:
            at = parts.pill(f"{one.unit} is off", "bad")
        said.append(f"{DOES.get(one.does, one.does)} by itself{', ' if at else ''}{at}")
    return "; ".join(said)


def _proof(found: Proof | None, well: str, never: str) -> str:
    if found is None:
        return never
    word = parts.pill(well, "good") if found.problem is None else parts.pill("failed", "bad")
    more = [f"<code>{escape(found.snapshot)}</code>"]
    more += [f"ready after {long(found.ready_s)}"] if found.ready_s is not None else []
    more += [] if found.whole else ["the lists only"]
    fault = _fault(found.problem) if found.problem else ""
    return f"{word} {parts.when(found.at)}, {', '.join(more)}{fault}"


def _restored(kept: Restore) -> str:
    about = f"<code>{escape(kept.snapshot)}</code> of {parts.when(kept.of)}"
    if kept.ended_at is None:
        return _bad(
            f"<b>Restoring {about} was cut off</b>, begun {parts.when(kept.begun_at)}, at:"
            f" {escape(kept.step)}. On the server, <code>ai-infra backup restore --undo</code>"
            " puts back what was there."
        )
    if kept.problem:
        return _bad(
            f"<b>Restoring {about} failed</b> {parts.when(kept.ended_at, ago=True)}; everything is"
            f" as it was before. {escape(kept.problem)}"
        )
    if datetime.now(UTC) - kept.ended_at > NEWS:
        return ""
    aside = f" What was there before is in <code>{escape(kept.aside or '')}</code>"
    if kept.database_aside:
        aside += f", its database is <code>{escape(kept.database_aside)}</code>"
    notes = "".join(f"<br>Note: {escape(one)}." for one in kept.notes)
    return (
        f'<p class="notice good"><b>Restored {about}</b> {parts.when(kept.ended_at, ago=True)}:'
        f" {escape(', '.join(kept.parts))}.{aside}. Remove it when you are sure.{notes}</p>"
    )


def _bad(html: str) -> str:
    return f'<p class="notice bad">{html}</p>'


def _fault(text: str) -> str:
    return f'<span class="bad">{escape(text)}</span>'
