"""The configuration and the secrets, for admins: files people edit too, read and changed here."""

from __future__ import annotations

import math
from typing import Annotated, Any, Self

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, Field, SecretStr, model_validator

from base.messages import Wire
from portal import api_keys, configuring, extensions
from portal.api.responses import may
from portal.door import Admin, At, need
from portal.shapes import Text
from portal.toml_edit import INTEGER_MAX, Change

router = APIRouter(prefix="/settings", tags=["settings"], dependencies=[need("admin")])


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("the text holds characters that cannot be seen")
    return text


def _number(number: Any) -> Any:
    if not math.isfinite(number) or abs(number) > INTEGER_MAX:
        raise ValueError("the number is too large")
    return number


Line = Annotated[Text, Field(max_length=10_000), AfterValidator(_printable)]
Strict = Field(strict=True)
One = (
    Annotated[bool, Strict]
    | Annotated[int, Strict, AfterValidator(_number)]
    | Annotated[float, Strict, AfterValidator(_number)]
    | Line
)
KeyName = Annotated[Line, Field(min_length=1, max_length=200)]


class KeyChange(BaseModel, extra="forbid", frozen=True):
    """`at`: the names that lead to the key, such as ["daily", "hard_limit_usd"]; `value` null
    takes the key out, so that the shipped one counts.
    """

    at: Annotated[list[KeyName], Field(min_length=1, max_length=8)]
    value: One | Annotated[list[One], Field(max_length=1_000)] | None


class Put(BaseModel, extra="forbid", frozen=True):
    """`version`: as it was read, "absent" for no file; then `changes` or the whole `text`."""

    version: Annotated[Text, Field(min_length=1, max_length=64)]
    changes: Annotated[list[KeyChange], Field(min_length=1, max_length=200)] | None = None
    text: Annotated[Text, Field(max_length=configuring.FILE_MAX_BYTES)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.changes is None) == (self.text is None):
            raise ValueError("give either `changes` or `text`")
        return self


class NewKey(BaseModel, extra="forbid", frozen=True):
    """The value is kept and never shown again."""

    value: Annotated[SecretStr, Field(min_length=1, max_length=65_000)]


class Programs(BaseModel, extra="forbid", frozen=True):
    programs: Annotated[list[KeyName], Field(min_length=1, max_length=100)]


class Restarted(Wire):
    restarted: list[str]


class Keys(Wire):
    keys: list[api_keys.ApiKey]


class Files(Wire):
    files: list[configuring.Configured]


@router.get("", summary="List the files")
async def files(desk: At, caller: Admin) -> Files:
    """Every file of the configuration (admin)."""
    return Files(files=await configuring.files(desk, caller))


@router.get("/keys", summary="List the secrets")
async def keys(desk: At, caller: Admin) -> Keys:
    """Which secrets there are and where from; never what they are (admin)."""
    return Keys(keys=await api_keys.keys(desk, caller))


@router.put("/keys/{name}", summary="Keep a secret", responses=may(404, 409))
async def put_key(desk: At, caller: Admin, name: str, body: NewKey) -> api_keys.ApiKey:
    """Keep a secret in its file (admin). Safe to repeat."""
    return await api_keys.put(desk, caller, name, body.value)


@router.delete("/keys/{name}", summary="Delete a secret", status_code=204, responses=may(404, 409))
async def remove_key(desk: At, caller: Admin, name: str) -> None:
    """Delete a secret's file (admin)."""
    await api_keys.remove(desk, caller, name)


@router.post("/keys/{name}/try", summary="Try a key", responses=may(404, 409))
async def try_key(desk: At, caller: Admin, name: str) -> api_keys.Tried:
    """Make one call with the key, the cheapest there is (admin)."""
    return await api_keys.attempt(desk, caller, name)


@router.get("/extensions", summary="Agents, hooks and MCP servers")
async def added(desk: At, caller: Admin) -> extensions.Extensions:
    """Agents, hooks and MCP servers as they are configured (admin)."""
    return await extensions.extensions(desk, caller)


@router.post("/restart", summary="Restart programs", responses=may(404, 409))
async def restart(desk: At, caller: Admin, body: Programs) -> Restarted:
    """Restart programs that read their settings only at the start (admin)."""
    return Restarted(restarted=await configuring.restart(desk, caller, body.programs))


@router.get("/agents/{name}", summary="Read an agent's file", responses=may(404))
async def agent(desk: At, caller: Admin, name: str) -> configuring.Configured:
    """An agent's file (admin)."""
    return await configuring.read(desk, caller, f"agents/{name}")


@router.put("/agents/{name}", summary="Change an agent's file", responses=may(404, 409))
async def put_agent(desk: At, caller: Admin, name: str, body: Put) -> configuring.Written:
    """Change an agent's file, or make one (admin)."""
    return await _put(desk, caller, f"agents/{name}", body)


@router.get("/{file}", summary="Read a file", responses=may(404))
async def file(desk: At, caller: Admin, file: str) -> configuring.Configured:
    """One file: what it says, and that over what is shipped (admin)."""
    return await configuring.read(desk, caller, file)


@router.put("/{file}", summary="Change a file", responses=may(404, 409))
async def put_file(desk: At, caller: Admin, file: str, body: Put) -> configuring.Written:
    """Change keys of a file, or its whole text (admin). 409 when it changed meanwhile."""
    return await _put(desk, caller, file, body)


async def _put(desk: At, caller: Admin, name: str, body: Put) -> configuring.Written:
    changes = [Change(at=tuple(one.at), value=one.value) for one in body.changes or ()]
    return await configuring.write(
        desk, caller, name, body.version, changes=changes, text=body.text
    )
