"""One frozen object with everything that can be configured.

Sources, first wins: environment `AI_INFRA_*`, `$AI_INFRA_HOME/config/settings.toml`, defaults.
`ANTHROPIC_BASE_URL` counts as `AI_INFRA_ANTHROPIC_BASE_URL` unless that is set too.
The API key comes from `ANTHROPIC_API_KEY`, else from `base/secrets.py`.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import stat
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import (
    AliasChoices,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from base.errors import SettingsError

#: sun_path of a Unix socket is 108 bytes on Linux; tmux and PostgreSQL add to the folder.
SOCKET_PATH_MAX_BYTES = 100
HANDS_USER, AGENTS_USER = "ai-hands", "ai"  # who the hands are: of root, of the appliance
#: The account of whoever runs the machine; it is let in by the machine, active or not.
OWNER_EMAIL = "admin@local"
OPENAI = "https://api.openai.com/v1"
#: What may stand in a header: else the transport's error would quote the key.
PLAIN_KEY = re.compile(r"[!-~]+")


#: The file that is read by itself, see `check`.
_alone: ContextVar[Path | None] = ContextVar("alone", default=None)


class Settings(BaseSettings):
    """Frozen. Build it with `load()`, which reports every fault at once."""

    model_config = SettingsConfigDict(env_prefix="AI_INFRA_", frozen=True, extra="forbid")

    home: Path = Path("~/.ai-infra")
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    appliance: bool = False  # under systemd, each program with an account of its own
    behind_nginx: bool = False  # then X-Forwarded-For counts, from this machine only
    #: How browsers reach the portal, such as https://ai.example.com; None: as host and port say.
    public_url: str | None = Field(None, pattern=r"^https?://[^\s/@?#]+$")
    rehearsal_port: int | None = Field(None, ge=1, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    redis_url: SecretStr | None = None
    postgres_dsn: SecretStr | None = None

    anthropic_base_url: str | None = Field(
        None,
        validation_alias=AliasChoices("AI_INFRA_ANTHROPIC_BASE_URL", "anthropic_base_url"),
    )
    aws_region: str | None = Field(None, pattern=r"^[a-z]{2}(-[a-z]{1,12}){1,3}-\d{1,2}$")
    aws_secrets_prefix: str = Field("ai-infrastructure/", pattern=r"^[A-Za-z0-9/_+=.@-]{0,256}$")
    aws_endpoint_url: str | None = Field(None, pattern=r"^https?://[^\s@]+$")
    model_timeout_s: float = Field(600.0, gt=0)
    model_silence_s: float = Field(90.0, gt=0)

    # Logging in by Google and GitHub; the client secrets are secrets of their own.
    google_client_id: str | None = Field(None, min_length=1)
    google_issuer: str = Field(
        "https://accounts.google.com", pattern=r"^https?://[^\s@?#]+[^/\s@?#]$"
    )
    github_client_id: str | None = Field(None, min_length=1)
    github_url: str = Field("https://github.com", pattern=r"^https?://[^\s@?#]+[^/\s@?#]$")
    github_api_url: str = Field("https://api.github.com", pattern=r"^https?://[^\s@?#]+[^/\s@?#]$")

    qdrant_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s@]+$",  # None: the embedded engine
        validation_alias=AliasChoices("AI_INFRA_QDRANT_URL", "QDRANT_URL", "qdrant_url"),
    )
    local_workers: bool = True  # False: on another machine, or none: words alone decide then
    embed_model: str = Field("minilm", min_length=1)  # or a folder, or openai:<model>
    embed_base_url: str = Field(OPENAI, pattern=r"^https?://[^\s@]+$")
    embed_device: Literal["auto", "cpu", "cuda"] = "auto"
    embed_dtype: Literal["auto", "fp32", "bf16"] = "auto"
    embed_compile: Literal["auto", "off"] = "auto"  # short texts by compiled code, where it gains
    rerank_model: Path | None = None
    sentiment_model: Path | None = None

    speech_to_text: Literal["auto", "openai", "whisper", "browser", "off"] = "auto"
    text_to_speech: Literal["auto", "openai", "piper", "espeak", "browser", "off"] = "auto"
    voice_base_url: str = Field(OPENAI, pattern=r"^https?://[^\s@]+$")
    transcription_model: str = Field("gpt-4o-mini-transcribe", min_length=1)
    speech_model: str = Field("gpt-4o-mini-tts", min_length=1)
    speech_voice: str = Field("alloy", min_length=1)
    whisper_model: Path | None = None  # a folder; `ai-infra voice pull small` fetches one
    piper_voice: Path | None = None  # VOICE.onnx, with VOICE.onnx.json beside it
    espeak_voice: str = Field("en", pattern=r"^[A-Za-z0-9+-]{1,40}$")

    # The root broker (`python -m provision`): its socket, None in local mode; who may open it
    # besides root; and the owner's rules for it, which only root may write.
    broker: Path | None = None
    broker_group: str | None = Field(None, pattern=r"^[a-z_][a-z0-9_-]{0,30}$")
    broker_config: Path = Path("/etc/ai-infra/broker.toml")

    heartbeat_s: float = Field(10.0, gt=0)
    lease_s: float = Field(60.0, gt=0)
    assign_lease_s: float = Field(15.0, gt=0)
    sweep_s: float = Field(5.0, gt=0)
    drain_s: float = Field(30.0, gt=0)
    restart_backoff_s: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...], NoDecode, Field(min_length=1)
    ] = (10.0, 30.0, 60.0)
    stable_s: float = Field(300.0, gt=0)
    hook_s: float = Field(60.0, gt=0)  # for a hook whose entry has no timeout

    _proposed: Path | None = PrivateAttr(None)

    @field_validator(
        "home", "rerank_model", "sentiment_model", "whisper_model", "piper_voice", "broker",
        "broker_config",
    )  # fmt: skip
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value is not None else None

    @field_validator("restart_backoff_s", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """In the environment a list is written `10,30,60`."""
        return value.strip("[] ").split(",") if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        if (alone := _alone.get()) is not None:
            return (TomlConfigSettingsSource(settings_cls, alone),)
        path = _home_from_environment() / "config" / "settings.toml"
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, path)

    # Folders -------------------------------------------------------------------------------

    @property
    def config(self) -> Path:
        """What the owner edits: settings.toml, models.toml, budgets.toml, agents/*.toml."""
        return self._proposed or self.home / "config"

    def proposing(self, folder: Path) -> Settings:
        """These settings with `folder` for the configuration: what is proposed is read by the
        same loaders before it replaces what there is.
        """
        other = self.model_copy()
        other._proposed = folder
        return other

    @property
    def secrets(self) -> Path:
        """Mode 0700; one file a secret, mode 0600."""
        return self.home / "secrets"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def memory(self) -> Path:
        return self.home / "MEMORY"

    @property
    def work(self) -> Path:
        """One folder a task: PRD.md and journal.jsonl."""
        return self.memory / "Work" / "active"

    @property
    def inbox(self) -> Path:
        """Where the portal lays files that the broker is asked to deploy."""
        return self.home / "inbox"

    @property
    def attachments(self) -> Path:
        """What people send with messages, `<user id>/<sha256>`; no server serves this folder."""
        return self.home / "attachments"

    @cached_property
    def run(self) -> Path:
        """Sockets and pid files. Moves to /tmp when the home's path is too long for a socket."""
        inside = self.home / "run"
        if len(bytes(inside)) + len("/.s.PGSQL.5432") <= SOCKET_PATH_MAX_BYTES:
            return inside
        return Path("/tmp") / f"ai-infra-{os.geteuid()}-{self.home_hash}"

    @property
    def home_hash(self) -> str:
        return hashlib.sha256(bytes(self.home)).hexdigest()[:8]

    @cached_property
    def workspaces(self) -> Path:
        """Parent of all workspaces: inside the home, unless root owns a home that the
        unprivileged hands cannot reach (such as /root); then /var/lib/ai-infra-workspaces.
        """
        inside = self.home / "workspaces"
        if os.geteuid() != 0 or _reachable_by_others(self.home):
            return inside
        return Path("/var/lib/ai-infra-workspaces") / self.home_hash

    def workspace(self, user_id: str, name: str = "main") -> Path:
        """The folder of one user's workspace of that name."""
        return self.workspaces / user_id / name

    @property
    def address(self) -> str:
        """How browsers reach the portal, without a slash at the end."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host
        return self.public_url or f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    # Services ------------------------------------------------------------------------------

    @property
    def redis_socket(self) -> Path:
        return self.run / "redis.sock"

    @property
    def redis(self) -> str:
        """The URL; the password is `redis-password` when the address has none."""
        if self.redis_url is not None:
            return self._with_password(self.redis_url.get_secret_value(), "redis-password")
        return f"unix://{self.redis_socket}"

    @property
    def postgres(self) -> str:
        """A DSN that asyncpg takes; the default is the private socket in `run`.

        The password is that of the secret `postgres` when an address of a host has none.
        """
        if self.postgres_dsn is not None:
            return self._with_password(self.postgres_dsn.get_secret_value(), "postgres")
        return f"postgresql://ai_infra@/ai_infra?host={quote(str(self.run))}"

    def _with_password(self, url: str, name: str) -> str:
        from base import secrets

        parts = urlsplit(url)
        if not parts.hostname or parts.password or "password=" in parts.query:
            return url
        if not (password := secrets.of(self).password(name)):
            return url
        user, _, host = parts.netloc.rpartition("@")
        user = f"{user.removesuffix(':')}:{quote(password, safe='')}"
        return urlunsplit(parts._replace(netloc=f"{user}@{host}"))

    @property
    def tmux_socket(self) -> Path:
        """The agents' own tmux server: session `ai-infrastructure`."""
        return self.run / "tmux.sock"

    @property
    def services_socket(self) -> Path:
        """A second tmux server, session `ai-services`, so that killing the agents' spares it."""
        return self.run / "services.sock"

    # Model ---------------------------------------------------------------------------------

    @property
    def api_key(self) -> SecretStr | None:
        """The provider's key as it is now, or None. Raises SettingsError when it cannot be had."""
        from base import secrets
        from base.redact import remember

        key = os.environ.get("ANTHROPIC_API_KEY", "").strip()
        remember(key)
        found = SecretStr(key) if key else secrets.of(self).get(secrets.ANTHROPIC_API_KEY)
        if found and not PLAIN_KEY.fullmatch(found.get_secret_value()):
            raise SettingsError(
                [
                    "the API key is not one line of plain characters; set it again: "
                    "ai-infra secrets set anthropic-api-key"
                ]
            )
        return found

    @cached_property
    def rehearsal(self) -> bool:
        """True when no provider was configured at the start; every surface says so."""
        return self.api_key is None and self.anthropic_base_url is None

    @property
    def rehearsal_url(self) -> str:
        return f"http://127.0.0.1:{self.rehearsal_port or self.port + 1}"

    @property
    def model_url(self) -> str | None:
        """Base URL for the SDK; None means the provider's own."""
        return self.rehearsal_url if self.rehearsal else self.anthropic_base_url

    @property
    def hands_user(self) -> str | None:
        """The user the hands run as: None means as we are (we are not root)."""
        return None if os.geteuid() else AGENTS_USER if self.appliance else HANDS_USER

    def prepare(self) -> None:
        """Make the folders with their modes. Safe to call any number of times.

        Raises SettingsError when one cannot be made. On the appliance the installer made them.
        """
        if self.appliance:
            return
        folders = [
            (self.home, 0o755 if os.geteuid() == 0 else 0o700),
            (self.config, 0o700),
            (self.config / "agents", 0o700),
            (self.home / "hooks", 0o755 if os.geteuid() == 0 else 0o700),
            (self.secrets, 0o700),
            (self.logs, 0o700),
            (self.attachments, 0o700),
            (self.run, 0o700),
            (self.memory, 0o700),
            (self.work, 0o700),
            (self.workspaces, 0o711),
        ]
        if self.run.is_symlink():  # in /tmp anybody could have put it there
            raise SettingsError([f"{self.run} is a symbolic link; remove it"])
        try:
            for path, mode in folders:
                path.mkdir(parents=True, exist_ok=True)
                if path.stat().st_uid == os.geteuid() and stat.S_IMODE(path.stat().st_mode) != mode:
                    path.chmod(mode)
        except OSError as error:
            raise SettingsError([f"cannot prepare {error.filename}: {error.strerror}"]) from error
        if self.run.stat().st_uid != os.geteuid():
            raise SettingsError([f"{self.run} belongs to another user; remove it"])


def load(**overrides: Any) -> Settings:
    """Read the settings. Raises SettingsError naming every fault; values never appear in it."""
    if "home" in overrides:
        os.environ["AI_INFRA_HOME"] = str(overrides["home"])
    return _read(**overrides)


def check(path: Path) -> Settings:
    """What a settings.toml says by itself, without the environment. Raises SettingsError as
    `load` does.
    """
    before = _alone.set(path)
    try:
        return _read()
    finally:
        _alone.reset(before)


def _read(**overrides: Any) -> Settings:
    try:
        return Settings(**overrides)
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(part) for part in fault['loc']) or 'settings'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError(faults) from None
    except ValueError as error:  # settings.toml that is no TOML
        raise SettingsError([f"settings.toml: {error}"]) from error


def _home_from_environment() -> Path:
    return Path(os.environ.get("AI_INFRA_HOME", "~/.ai-infra")).expanduser().absolute()


def _reachable_by_others(path: Path) -> bool:
    """Whether every existing folder on the way lets other users pass."""
    return all(
        parent.stat().st_mode & stat.S_IXOTH for parent in [path, *path.parents] if parent.exists()
    )


def hands_account() -> pwd.struct_passwd | None:
    """The account of the hands user when it exists."""
    try:
        return pwd.getpwnam(HANDS_USER)
    except KeyError:
        return None
