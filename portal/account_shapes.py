"""What callers send about accounts, checked at the border."""

from __future__ import annotations

import zoneinfo
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, StrictBool, model_validator

from portal.scopes import SCOPES
from portal.shapes import Text

PASSWORD_MIN_CHARS = 12
Role = Literal["user", "admin"]


def _email(text: str) -> str:
    text = text.strip().lower()
    name, _, host = text.rpartition("@")
    if not name or not host or any(char.isspace() for char in text) or "@" in name:
        raise ValueError("this is no email address")
    return text


def _scope(text: str) -> str:
    if text not in SCOPES:
        raise ValueError(f"no such scope; there are: {', '.join(SCOPES)}")
    return text


def _zone(text: str) -> str:
    try:
        zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            "no such time zone; write one such as Europe/Berlin or America/New_York"
        ) from error
    return text


Email = Annotated[Text, Field(max_length=255), AfterValidator(_email)]
NewPassword = Annotated[Text, Field(min_length=PASSWORD_MIN_CHARS, max_length=1024)]
DisplayName = Annotated[Text, Field(max_length=100), AfterValidator(str.strip)]
Zone = Annotated[Text, Field(max_length=64), AfterValidator(_zone)]
Scope = Annotated[Text, AfterValidator(_scope)]


class NewUser(BaseModel, extra="forbid", frozen=True):
    """Without a password the answer has an invitation link, good for seven days."""

    email: Email
    display_name: DisplayName = ""
    role: Role = "user"
    password: NewPassword | None = None


class ChangeUser(BaseModel, extra="forbid", frozen=True):
    """What is left out stays."""

    role: Role | None = None
    is_active: StrictBool | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.role is None and self.is_active is None:
            raise ValueError("give `role`, `is_active` or both")
        return self


class Profile(BaseModel, extra="forbid", frozen=True):
    """What is left out stays. `time_zone` is an IANA name; null: as the browser says."""

    display_name: DisplayName | None = None
    time_zone: Zone | None = None


class NewToken(BaseModel, extra="forbid", frozen=True):
    """`expires_in_days` null: it never expires."""

    name: Annotated[Text, Field(min_length=1, max_length=100)]
    scopes: Annotated[frozenset[Scope], Field(min_length=1)]
    expires_in_days: Annotated[int, Field(ge=1, le=3660)] | None = 90
