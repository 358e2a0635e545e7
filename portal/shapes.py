"""What callers send, checked at the border: an unknown field is a mistake and said so.

What they get back is what the record holds.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StrictBool

from base.messages import Effort

MESSAGE_MAX_CHARS = 50_000
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


def _effort(value: Any) -> Any:
    known = [effort.value for effort in Effort]
    if value is not None and value not in known:
        raise ValueError(f"no such effort; there are: {', '.join(known)}")
    return value


Text = Annotated[str, AfterValidator(_storable), BeforeValidator(_encodable)]
Name = Annotated[Text, Field(min_length=1, max_length=100)]


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


class Send(BaseModel, extra="forbid", frozen=True):
    """A message for the agents. `priority` 1 to 10, higher first; `agent` skips the planning."""

    content: Annotated[Text, AfterValidator(_message)]
    attachments: list[Text] = Field(default_factory=list, max_length=20)
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
