"""What callers send, checked at the border: an unknown field is a mistake and said so.

What they get back is what the record holds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StrictBool,
    model_validator,
)

from base.messages import Effort
from pai.shapes import INT_MAX, LIMIT_MAX, QUERY_CHARS, TEXT_CHARS, Collection, Moment, Tier

MESSAGE_MAX_CHARS = 50_000
PIECES_MAX = 200
SENTENCE_CHARS = 1_000
WORKSPACE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("text cannot hold a NUL character")
    return text


def _encodable(text: Any) -> Any:
    if isinstance(text, str) and any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("text holds half of a surrogate pair, which is no character")
    return text


def _message(text: str) -> str:
    if not text.strip():
        raise ValueError("the message is empty")
    if len(text) > MESSAGE_MAX_CHARS:
        raise ValueError(
            f"the message has {len(text):,} characters; the limit is {MESSAGE_MAX_CHARS:,}"
        )
    return text


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("there is nothing in it to remember")
    return text


def _effort(value: Any) -> Any:
    known = [effort.value for effort in Effort]
    if value is not None and value not in known:
        raise ValueError(f"no such effort; there are: {', '.join(known)}")
    return value


def _written(value: object) -> object:
    """pydantic would take a number for seconds since 1970."""
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return value
    raise ValueError("a time is written 2026-11-28T09:30:00Z")


#: A time in a query.
Instant = Annotated[Moment, BeforeValidator(_written)]
Text = Annotated[str, AfterValidator(_storable), BeforeValidator(_encodable)]
Name = Annotated[Text, Field(min_length=1, max_length=100)]
Piece = Annotated[Text, AfterValidator(_said), Field(max_length=TEXT_CHARS)]


class Login(BaseModel, extra="forbid", frozen=True):
    email: Text = Field(max_length=255)
    password: Text = Field(max_length=1024)


class Refresh(BaseModel, extra="forbid", frozen=True):
    refresh_token: Text = Field(max_length=512)


class Password(BaseModel, extra="forbid", frozen=True):
    """`current_password` may be left out only by the owner of the machine (a local token)."""

    new_password: Text = Field(min_length=12, max_length=1024)
    current_password: Text | None = Field(None, max_length=1024)


class NewConversation(BaseModel, extra="forbid", frozen=True):
    title: Text | None = Field(None, max_length=255)


class Change(BaseModel, extra="forbid", frozen=True):
    """What to change of a conversation; what is left out stays."""

    title: Text | None = Field(None, min_length=1, max_length=255)
    status: Literal["active", "archived"] | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.title is None and self.status is None:
            raise ValueError("give a title, a status, or both")
        return self


class NewDomain(BaseModel, extra="forbid", frozen=True):
    """`upstream`: of kind proxy, http://127.0.0.1:PORT; `target`: of kind redirect; `subdomains`:
    labels in front that are served alike, such as www.
    """

    domain_name: Text = Field(min_length=1, max_length=253)
    setup_ssl: StrictBool = True
    kind: Literal["static", "proxy", "redirect"] = "static"
    upstream: Text | None = Field(None, max_length=60)
    target: Text | None = Field(None, max_length=253)
    subdomains: list[Text] = Field([], max_length=20)
    challenge: Literal["http-01", "dns-01"] = "http-01"


class SwitchDomain(BaseModel, extra="forbid", frozen=True):
    enabled: StrictBool


class UndoChange(BaseModel, extra="forbid", frozen=True):
    """`change`: its id; left out: the last one."""

    change: Text | None = Field(None, min_length=1, max_length=100)


#: What of a backup can be put in place by itself.
Part = Literal["database", "vectors", "memory", "configuration", "certificates", "sites"]
PARTS: tuple[Part, ...] = get_args(Part)
#: Those that only the appliance has.
SERVER: tuple[Part, ...] = ("certificates", "sites")


class PlanRestore(BaseModel, extra="forbid", frozen=True):
    """`parts`: what is restored, left out: all of it."""

    parts: list[Part] = Field(list(PARTS), min_length=1, max_length=len(PARTS))


class RestoreBackup(BaseModel, extra="forbid", frozen=True):
    """`confirm`: the snapshot's id once more, as a person's word that it is meant."""

    confirm: Text = Field(min_length=1, max_length=100)
    parts: list[Part] = Field(list(PARTS), min_length=1, max_length=len(PARTS))


class NewWebhook(BaseModel, extra="forbid", frozen=True):
    """`url`: https, or http to this machine. `private`: it may lead to an address that is not
    public; from an admin alone.
    """

    url: Text = Field(min_length=1, max_length=2_000)
    description: Text = Field("", max_length=200)
    private: StrictBool = False


class Send(BaseModel, extra="forbid", frozen=True):
    """A message for the agents. `priority` 1 to 10, higher first; `agent` skips the planning.

    `attachments`: ids of `POST /api/attachments`. `follows`: the person's message that this one
    comes after, left out for the newest; `edits`: the one whose place it takes, in a branch of
    its own.
    """

    content: Annotated[Text, AfterValidator(_message)]
    attachments: list[UUID] = Field(default_factory=list, max_length=20)
    follows: UUID | None = None
    edits: UUID | None = None
    effort: Annotated[Effort | None, BeforeValidator(_effort)] = None
    agent: Name | None = None
    workspace: Text = Field("main", pattern=WORKSPACE)
    priority: int = Field(5, ge=1, le=10)


class Steer(BaseModel, extra="forbid", frozen=True):
    text: Annotated[Text, AfterValidator(_message)]


class Decision(BaseModel, extra="forbid", frozen=True):
    """The answer to an approval; the agent is told the reason."""

    approve: StrictBool
    reason: Text = Field("", max_length=500)


class Purge(BaseModel, extra="forbid", frozen=True):
    """Which dead letters to delete: those of `stream`, or all."""

    stream: Text | None = Field(None, max_length=200)


class Filters(BaseModel, extra="forbid", frozen=True):
    """What a memory must be to be found. None and an empty list: anything."""

    tier: Tier | list[Tier] | None = None
    agent: Name | None = None
    kind: Name | None = None
    collection: list[Collection] = Field(default_factory=list)
    conversation_id: UUID | None = None
    since: Instant | None = None
    until: Instant | None = None


class Search(BaseModel, extra="forbid", frozen=True):
    """`neighbours`: how many on each side of a hit in its conversation come with it;
    `budget_tokens`: what all found may have together. Cold memories are looked through only when
    `filters.tier` names them.
    """

    query: Text = Field(min_length=1, max_length=QUERY_CHARS)
    limit: int = Field(10, ge=1, le=LIMIT_MAX, strict=True)
    filters: Filters = Filters()
    neighbours: int = Field(0, ge=0, le=5, strict=True)
    budget_tokens: int | None = Field(None, ge=1, strict=True)


class Remember(BaseModel, extra="forbid", frozen=True):
    """One memory, or a document in `text` as a list of its pieces, whose places in `file` begin
    at `first`. `shared`: for everybody, from the owner's own command alone.
    """

    text: Piece | Annotated[list[Piece], Field(min_length=1, max_length=PIECES_MAX)]
    kind: Text = Field("fact", min_length=1, max_length=40)
    tags: list[Name] = Field(default_factory=list, max_length=20)
    knowledge: bool = False
    source: Text = Field("", max_length=500)
    domain: Text = Field("", max_length=100)
    file: Text = Field("", max_length=500)
    first: int = Field(0, ge=0, le=INT_MAX - PIECES_MAX)
    shared: StrictBool = False


class EditMemory(BaseModel, extra="forbid", frozen=True):
    """What a memory says from now on. `kind`, `tags` left out: as they were; `seen`: the card's
    hash when it was read, so that nobody else's change is lost.
    """

    text: Piece
    kind: Text | None = Field(None, min_length=1, max_length=40)
    tags: list[Name] | None = Field(None, max_length=20)
    seen: Text = Field("", max_length=64)


class Forget(BaseModel, extra="forbid", frozen=True):
    """All of these or none. `shared`: they are everybody's, from the owner's own command alone."""

    ids: list[UUID] = Field(min_length=1, max_length=100)
    shared: StrictBool = False


class Feedback(BaseModel, extra="forbid", frozen=True):
    """How good an answer was: a `rating` from 1 to 5, or in one word what became of it."""

    rating: int | None = Field(None, ge=1, le=5)
    kind: Literal["correction", "acceptance", "edit"] | None = None
    comment: Text = Field("", max_length=2_000)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.rating is None) == (self.kind is None):
            raise ValueError("give either a rating (1 to 5) or a kind")
        return self


class Sentence(BaseModel, extra="forbid", frozen=True):
    """`language`: ISO 639, as `de`; None: as the settings say, or as the letters tell."""

    text: Piece = Field(max_length=SENTENCE_CHARS)
    language: str | None = Field(None, pattern=r"^[a-z]{2,3}$")
