"""Secrets: AWS Secrets Manager when it is configured, else systemd credentials, else files.

The only module that knows boto3, which it loads at the first question to AWS. A secret that AWS
does not have is looked for on this machine; one that AWS denies is an error. What AWS said is
kept in memory and asked again every four minutes; when AWS fails, the last value stays.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
import weakref
from datetime import UTC
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import SecretStr

from base import log, secrets_files
from base.errors import SettingsError
from base.redact import remember
from base.secrets_files import Found, Source

if TYPE_CHECKING:
    from base.settings import Settings

ANTHROPIC_API_KEY = "anthropic-api-key"
POSTGRES = "postgres"
REDIS_PASSWORD = "redis-password"
AWS_CREDENTIALS = "aws-credentials"
#: The names that the product may ask for; others are the owner's, for MCP servers and the like.
NAMES = (
    ANTHROPIC_API_KEY, "openai-api-key", POSTGRES, REDIS_PASSWORD, "jwt-secret",
    "cloudflare-token", "github-pat", "qdrant-api-key", "brave-search-api-key",
    "google-client-secret", "github-client-secret",
)  # fmt: skip

REFRESH_S = 240.0
RETRY_S = 30.0
CONNECT_S, READ_S = 3.0, 5.0
GONE = {"ResourceNotFoundException", "InvalidRequestException"}
DENIED = {"AccessDeniedException", "AccessDenied", "DecryptionFailure"}
REFUSED = {
    "UnrecognizedClientException", "InvalidSignatureException", "InvalidClientTokenId",
    "SignatureDoesNotMatch", "ExpiredTokenException", "ExpiredToken", "IncompleteSignature",
    "MissingAuthenticationToken", "OptInRequired",
}  # fmt: skip
PRIVATE_FIELD = re.compile(r"(?i)pass|secret|token|key|credential")

logger = log.get("secrets")
_all: dict[tuple[object, ...], Secrets] = {}


def of(settings: Settings) -> Secrets:
    """The one `Secrets` of this process for these settings."""
    where = (
        settings.home,
        settings.aws_region,
        settings.aws_secrets_prefix,
        settings.aws_endpoint_url,
    )
    return _all.get(where) or _all.setdefault(where, Secrets(settings))


def prime(settings: Settings) -> None:
    """Read what every process needs while no event loop waits. Raises SettingsError."""
    _ = settings.rehearsal, settings.redis, settings.postgres


class Secrets:
    """Reads secrets by name, from any thread. Never prints or pickles one.

    The first question to AWS for a name blocks for as long as AWS takes, at most some 20 s: in an
    event loop use `fetch`. Later ones are answered from memory.
    """

    def __init__(
        self, settings: Settings, *, refresh_s: float = REFRESH_S, retry_s: float = RETRY_S
    ) -> None:
        self._folder = settings.secrets
        self._aws = _Aws(settings) if settings.aws_region else None
        self._refresh_s = refresh_s
        self._retry_s = retry_s
        self._held: dict[str, Found | None] = {}
        self._failed: dict[str, tuple[float, SettingsError]] = {}
        self._troubled: set[str] = set()
        self._asking = threading.Lock()
        self._refresher: threading.Thread | None = None

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not pickled")

    def get(self, name: str) -> SecretStr | None:
        """The secret, or None when no source has it.

        Raises SettingsError when a source has it and does not give it: AWS denies it or cannot
        be reached and never gave it before, the file is open to others.
        """
        found = self.find(name)
        return found.value if found else None

    def need(self, name: str) -> SecretStr:
        """The secret. Raises SettingsError, also when no source has it."""
        if (value := self.get(name)) is None:
            places = f"neither a systemd credential nor {self._folder / name} is there"
            if self._aws:
                places = f"AWS has no {self._aws.address(name)}, and {places}"
            raise SettingsError([f"no secret {name}: {places}; run: ai-infra secrets set {name}"])
        return value

    def password(self, name: str) -> str | None:
        """The field `password` of a secret that is a JSON object, else its whole text."""
        if (value := self.get(name)) is None:
            return None
        fields = _fields(value.get_secret_value())
        return str(fields.get("password") or "") if fields else value.get_secret_value()

    async def fetch(self, name: str) -> SecretStr | None:
        """`get` that never blocks the event loop."""
        if self._aws is None or name in self._held:
            return self.get(name)
        return await asyncio.to_thread(self.get, name)

    def source(self, name: str) -> Source:
        """Where `get` takes it from. Raises SettingsError as `get` does."""
        found = self.find(name)
        return found.source if found else "none"

    def find(self, name: str) -> Found | None:
        """The secret with its source and age. Raises SettingsError as `get` does."""
        secrets_files.named(name)
        found = (
            (self._from_aws(name) if self._aws else None)
            or secrets_files.from_credential(name)
            or secrets_files.from_file(self._folder, name)
        )
        if found:
            _hide(found.value.get_secret_value())
        return found

    def refresh(self, name: str) -> bool:
        """Ask AWS again now (blocks); whether the value changed. False when it cannot tell."""
        if self._aws is None:
            return False
        with self._asking:
            before = self._held.get(name)
            try:
                now = self._aws.read(name)
            except (SettingsError, OutageError) as error:
                if name not in self._troubled:
                    self._troubled.add(name)
                    logger.warning("secret not refreshed, kept the last", name=name, why=str(error))
                return False
            if name in self._troubled:
                self._troubled.discard(name)
                logger.info("secret refreshed again", name=name)
            self._held[name] = now
        if now:
            _hide(now.value.get_secret_value())
        changed = (now and now.value) != (before and before.value)
        if changed:
            logger.info("secret changed", name=name, there=now is not None)
        return changed

    def _from_aws(self, name: str) -> Found | None:
        if name in self._held:
            return self._held[name]
        assert self._aws is not None
        with self._asking:
            if name in self._held:
                return self._held[name]
            failed_at_s, failure = self._failed.get(name, (0.0, None))
            if failure and time.monotonic() - failed_at_s < self._retry_s:
                raise failure
            try:
                found = self._held[name] = self._aws.read(name)
            except (SettingsError, OutageError) as error:
                told = error if isinstance(error, SettingsError) else SettingsError([str(error)])
                self._failed[name] = (time.monotonic(), told)
                raise told from None
            self._failed.pop(name, None)
            if self._refresher is None:
                self._refresher = threading.Thread(
                    target=_keep_fresh,
                    args=(weakref.ref(self), self._refresh_s, self._retry_s),
                    name="secrets",
                    daemon=True,
                )
                self._refresher.start()
            return found


class OutageError(Exception):
    """AWS could not be asked; asking again later may work."""


class _Aws:
    """AWS Secrets Manager, one question at a time; the client is made at the first."""

    def __init__(self, settings: Settings) -> None:
        self._region = settings.aws_region or ""
        self._prefix = settings.aws_secrets_prefix
        self._endpoint = settings.aws_endpoint_url
        self._folder = settings.secrets
        self._client: Any = None

    def address(self, name: str) -> str:
        return f"{self._prefix}{name} ({self._region})"

    def read(self, name: str) -> Found | None:
        """The current value; None when AWS has no such secret. Raises SettingsError, OutageError.

        Causes are cut off on purpose: AWS quotes what was sent.
        """
        from botocore import exceptions as aws

        try:
            if self._client is None:
                self._client = self._connect()
            answer = self._client.get_secret_value(SecretId=self._prefix + name)
        except aws.ClientError as error:
            code = _code(error.response.get("Error", {}))
            if code in GONE:
                return None
            raise self._refusal(code, name) from None
        except (
            aws.NoCredentialsError,
            aws.PartialCredentialsError,
            aws.CredentialRetrievalError,
            aws.ProfileNotFound,
            aws.NoAuthTokenError,
            aws.TokenRetrievalError,
            aws.ConfigParseError,
        ) as error:
            self._client = None
            raise SettingsError(
                [
                    f"no AWS credentials to read {self.address(name)} ({type(error).__name__}): "
                    "give the machine a role, or fill ~/.aws/credentials, or run ai-infra up with "
                    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set"
                ]
            ) from None
        except (aws.InvalidRegionError, aws.NoRegionError, ValueError) as error:
            self._client = None
            raise SettingsError(
                [f"aws_region or aws_endpoint_url is wrong ({type(error).__name__})"]
            ) from None
        except (aws.BotoCoreError, OSError) as error:
            raise OutageError(
                f"AWS Secrets Manager cannot be reached for {self.address(name)} "
                f"({type(error).__name__})"
            ) from None
        text = answer.get("SecretString")
        if not isinstance(text, str):
            raise SettingsError([f"{self.address(name)} is binary; store it as text"])
        since = answer.get("CreatedDate")
        return (
            Found(
                value=SecretStr(text.strip()),
                source="aws",
                since=since.astimezone(UTC) if since else None,
            )
            if text.strip()
            else None
        )

    def _connect(self) -> Any:
        import boto3.session
        from botocore.config import Config

        given = self._credentials()
        session = boto3.session.Session(region_name=self._region, **given)
        if (found := session.get_credentials()) is not None:
            frozen = found.get_frozen_credentials()
            for value in (frozen.secret_key, frozen.token):
                remember(value or "")
        return session.client(
            "secretsmanager",
            endpoint_url=self._endpoint,
            config=Config(
                connect_timeout=CONNECT_S,
                read_timeout=READ_S,
                retries={"mode": "standard", "total_max_attempts": 2},
            ),
        )

    def _credentials(self) -> dict[str, str]:
        """What `up` took out of the environment; nothing: boto3 looks where it always does."""
        found = secrets_files.from_file(self._folder, AWS_CREDENTIALS)
        if found is None:
            return {}
        _hide(found.value.get_secret_value())
        kept = _fields(found.value.get_secret_value())
        names = {"aws_access_key_id", "aws_secret_access_key", "aws_session_token"}
        given = {name: str(kept[name]) for name in names if kept.get(name)}
        if len(given) < len(names) - (not kept.get("aws_session_token")):
            path = self._folder / AWS_CREDENTIALS
            raise SettingsError([f"{path} is not what ai-infra up writes; remove it"])
        return given

    def _refusal(self, code: str, name: str) -> SettingsError | OutageError:
        if code in DENIED:
            return SettingsError(
                [
                    f"AWS denies reading {self.address(name)} ({code}): allow this machine's "
                    "identity secretsmanager:GetSecretValue on it, and kms:Decrypt on its key"
                ]
            )
        if code in REFUSED:
            self._client = None  # the credentials may be put right meanwhile
            return SettingsError(
                [
                    f"AWS does not accept the credentials for {self.address(name)} ({code}): "
                    f"renew them; those of ai-infra are in {self._folder / AWS_CREDENTIALS}"
                ]
            )
        return OutageError(f"AWS did not give {self.address(name)} ({code})")


def _code(told: dict[str, str]) -> str:
    """The error's code. One that came as XML arrives as a status with the text beside it."""
    code, message = str(told.get("Code", "")), str(told.get("Message", ""))
    if code.isdigit() and (found := re.search(r"<Code>(\w{1,80})</Code>", message)):
        return found[1]
    return "AccessDenied" if code == "403" else code


def _keep_fresh(kept: weakref.ref[Secrets], refresh_s: float, retry_s: float) -> None:
    """Ask again for every name that was asked for, as long as somebody holds the object."""
    wait_s = refresh_s
    while True:
        time.sleep(wait_s)
        secrets = kept()
        if secrets is None:
            return
        for name in tuple(secrets._held):
            secrets.refresh(name)
        wait_s = min(refresh_s, retry_s) if secrets._troubled else refresh_s
        del secrets


def _fields(text: str) -> dict[str, Any]:
    """The JSON object that `text` is; empty when it is none."""
    try:
        found = json.loads(text) if text.startswith("{") else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _hide(text: str) -> None:
    """From now on the value, or the private fields of a JSON object, never show."""
    remember(text)
    for field, value in _fields(text).items():
        if isinstance(value, str) and PRIVATE_FIELD.search(field):
            remember(value)
