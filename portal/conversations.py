"""What a person does with whole conversations: find, rename, archive and bring back, take along."""

from __future__ import annotations

import json
from typing import Any, Literal

from base.errors import InputError
from base.messages import Wire
from base.outbox import storable
from portal.auth import Caller
from portal.desk import Desk
from portal.talk import (
    Conversation,
    Conversations,
    File,
    Said,
    change,
    conversation,
    files_of,
    pack,
    unpack,
)
from portal.trail import event

TITLE_MAX_CHARS = 255
QUERY_MAX_CHARS = 200
#: Export reads so many messages at a time.
PAGE = 1_000


class Exported(Wire):
    """A conversation with all its branches; `parent_message_id` tells what each follows."""

    conversation: Conversation
    messages: list[Said]
    files: dict[str, list[File]]


async def search(
    desk: Desk,
    caller: Caller,
    words: str,
    *,
    status: str = "active",
    limit: int = 20,
    cursor: str | None = None,
) -> Conversations:
    """Those whose title or messages hold `words`, whatever their case, newest activity first."""
    words = storable(words.strip(), "the search")
    if not words or len(words) > QUERY_MAX_CHARS:
        raise InputError(f"a search has 1 to {QUERY_MAX_CHARS} characters")
    before, last = unpack(cursor) if cursor else (None, None)
    escaped = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    rows = await desk.store.fetch(
        "SELECT c.* FROM conversations AS c WHERE c.user_id = $1 AND c.status = $2"
        " AND ($3::timestamptz IS NULL OR (c.updated_at, c.id) < ($3, $4::uuid))"
        " AND (c.title ILIKE $6 OR EXISTS (SELECT FROM messages AS m"
        " WHERE m.conversation_id = c.id AND m.role IN ('user', 'assistant')"
        " AND m.content ILIKE $6))"
        " ORDER BY c.updated_at DESC, c.id DESC LIMIT $5",
        *(caller.user_id, status, before, last, limit + 1, f"%{escaped}%"),
    )
    found = [Conversation(**row) for row in rows[:limit]]
    more = len(rows) > limit
    return Conversations(
        conversations=found,
        next_cursor=pack(found[-1].updated_at, found[-1].id) if more else None,
    )


async def rename(desk: Desk, caller: Caller, conversation_id: str, title: str) -> Conversation:
    """Its new title, on one line. Raises InputError for none or too long a one."""
    found = await conversation(desk, caller, conversation_id)
    title = " ".join(storable(title, "the title").split())
    if not title or len(title) > TITLE_MAX_CHARS:
        raise InputError(f"a title has 1 to {TITLE_MAX_CHARS} characters")
    await desk.store.execute("UPDATE conversations SET title = $2 WHERE id = $1", found.id, title)
    return found.model_copy(update={"title": title})


async def restore(desk: Desk, caller: Caller, conversation_id: str) -> Conversation:
    """Bring an archived one back to the list, where it was. Twice is safe."""
    return await change(desk, caller, conversation_id, status="active")


async def export(
    desk: Desk, caller: Caller, conversation_id: str, form: Literal["markdown", "json"]
) -> str:
    """All of it, every branch, in the order in which it was said."""
    found = await conversation(desk, caller, conversation_id)
    rows: list[dict[str, Any]] = []
    while True:
        last = rows[-1] if rows else None
        page = await desk.store.fetch(
            "SELECT *, metadata->>'task_id' AS task_id FROM messages WHERE conversation_id = $1"
            " AND ($2::timestamptz IS NULL OR (created_at, id) > ($2, $3::uuid))"
            " ORDER BY created_at, id LIMIT $4",
            *(found.id, last and last["created_at"], last and last["id"], PAGE),
        )
        rows += page
        if len(page) < PAGE:
            break
    said = [Said(**row) for row in rows]
    files = await files_of(desk, [one.id for one in said])
    desk.tell(event("access", "read", f"conversations/{found.id}/export", caller=caller))
    whole = Exported(conversation=found, messages=said, files=files)
    if form == "json":
        return json.dumps(whole.model_dump(mode="json"), ensure_ascii=False, indent=2)
    return _markdown(whole)


def _markdown(whole: Exported) -> str:
    versions: dict[str | None, list[str]] = {}
    for one in whole.messages:
        if one.role == "user":
            versions.setdefault(one.parent_message_id, []).append(one.id)
    lines = [f"# {whole.conversation.title or 'Conversation'}", ""]
    for one in whole.messages:
        who = "You" if one.role == "user" else one.agent or one.role
        same = versions.get(one.parent_message_id, []) if one.role == "user" else []
        branch = f", version {same.index(one.id) + 1} of {len(same)}" if len(same) > 1 else ""
        lines += [f"## {who}, {one.created_at:%Y-%m-%d %H:%M} UTC{branch}", "", one.content, ""]
        lines += [f"- attached: {file.name}" for file in whole.files.get(one.id, ())]
        lines += [""] if whole.files.get(one.id) else []
    return "\n".join(lines)
