"""config/outside.toml: which zones and repositories are managed, and the tokens for them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from croniter import croniter
from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationError, model_validator

from base import secrets, secrets_files
from base.errors import ConflictError, SettingsError
from base.redact import remember
from base.settings import PLAIN_KEY, load
from base.verb_words import Host, Name
from base.verbs_outside import repository_path
from provision.box import Box

SHIPPED = Path(__file__).resolve().parent.parent / "config" / "outside.toml"
CLOUDFLARE, GITHUB = "cloudflare-token", "github-pat"
#: Plain http is for a server on this machine: a token does not travel in the clear.
URL = r"^(https://[^\s@?#]+[^/\s@?#]|http://(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?(/[^\s@?#]*[^/\s@?#])?)$"


def _cron(text: str) -> str:
    if text and (len(text.split()) != 5 or not croniter.is_valid(text)):
        raise ValueError(f'{text!r} is no schedule; write five fields as in "0 2 * * *"')
    return text


def _local(value: Path) -> Path:
    if not value.is_absolute() or ".." in value.parts or value == Path("/"):
        raise ValueError("a path starts with / and has no ..")
    return value


Schedule = Annotated[str, AfterValidator(_cron)]
Local = Annotated[Path, AfterValidator(_local)]
Folder = Annotated[str, AfterValidator(repository_path)]


class Cloudflare(BaseModel, frozen=True, extra="forbid"):
    zones: tuple[Host, ...]
    account: str = Field(pattern=r"^[0-9a-f]{0,32}$")
    url: str = Field(pattern=URL)


class Github(BaseModel, frozen=True, extra="forbid"):
    owner: str = Field(pattern=r"^[A-Za-z0-9-]{0,39}$")
    url: str = Field(pattern=URL)
    api_url: str = Field(pattern=URL)
    author: str = Field(pattern=r"^[^<>\n]{1,100} <[^<>\s]{1,100}>$")


class Repository(BaseModel, frozen=True, extra="forbid"):
    """paths: folder in the repository → folder or file of this machine."""

    repository: str = Field(pattern=r"^([A-Za-z0-9-]{1,39}/)?[A-Za-z0-9._-]{1,100}$")
    kind: Literal["backup", "sync"]
    paths: dict[Folder, Local] = Field(min_length=1)
    branch: str = Field("main", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$")
    schedule: Schedule = ""
    create: bool = False
    public: bool = False
    leave_out: tuple[str, ...] = ()
    not_secret: tuple[str, ...] = ()
    file_bytes: int = Field(50_000_000, ge=1, le=100_000_000)

    @model_validator(mode="after")
    def _apart(self) -> Repository:
        for one in self.paths:
            for other in self.paths:
                if other.startswith(f"{one}/"):
                    raise ValueError(f"paths: {other} lies in {one}")
        return self


class Outside(BaseModel, frozen=True, extra="forbid"):
    cloudflare: Cloudflare
    github: Github
    repositories: dict[Name, Repository] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _owned(self) -> Outside:
        for name, one in self.repositories.items():
            if "/" not in one.repository and not self.github.owner:
                raise ValueError(f"repositories.{name}: write OWNER/{one.repository}, or set owner")
        return self

    def full_name(self, one: Repository) -> str:
        return one.repository if "/" in one.repository else f"{self.github.owner}/{one.repository}"


def read(box: Box) -> Outside:
    """The shipped file with the box's laid over it. Raises SettingsError naming every fault."""
    own = box.config / "outside.toml"
    table: dict[str, Any] = {}
    for path in (SHIPPED, own):
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise SettingsError([f"{path}: {error}"]) from error
        for key, part in found.items():
            both = isinstance(part, dict) and isinstance(table.get(key), dict)
            table[key] = {**table[key], **part} if both else part
    try:
        return Outside.model_validate(table)
    except ValidationError as error:
        faults = [
            f"{own}: {'.'.join(str(part) for part in fault['loc'])}: "
            + str(fault["msg"]).removeprefix("Value error, ")
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError(faults) from error


async def token(box: Box, name: str, what: str) -> SecretStr:
    """The secret: from the box's own root-only folder, else from where all are (AWS, a credential).

    Raises ConflictError in words when there is none, SettingsError when it is not given.
    """
    found = await given(box, name)
    if found is None:
        raise ConflictError(
            f"{what} is not set up: there is no secret {name}; put the token into "
            f"{box.config / 'secrets' / name} (mode 0600, root's), or into AWS Secrets Manager"
        )
    return found


async def given(box: Box, name: str) -> SecretStr | None:
    """As `token`, for who can do without: None when there is none."""
    found = _kept(box, name) or await secrets.of(load()).fetch(name)
    if found is not None and not PLAIN_KEY.fullmatch(found.get_secret_value()):
        raise SettingsError([f"the secret {name} is not one line of plain characters"])
    return found


def known_secrets(box: Box) -> list[str]:
    """The secrets of this machine that can be read here, to find them where they must not be."""
    found = []
    settings = load()
    for folder in (settings.secrets, box.config / "secrets"):
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            try:
                text = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
            except (OSError, UnicodeDecodeError):
                continue
            if len(text) >= 8:
                remember(text)
                found.append(text)
    return found


def _kept(box: Box, name: str) -> SecretStr | None:
    kept = secrets_files.from_file(box.config / "secrets", name)
    if kept is not None:
        remember(kept.value.get_secret_value())
    return kept.value if kept else None
