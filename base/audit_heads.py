"""Signed heads: where the chain stood, written outside the database.

A head is one line of `$AI_INFRA_HOME/audit/heads.jsonl` and one entry of the system journal
(`SYSLOG_IDENTIFIER=ai-infra-audit`, field `AI_INFRA_AUDIT_HEAD`): JSON in the canonical form of
`audit_chain`, signed with Ed25519 over all of it but `signature`. Each names the SHA-256 of the
line before it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import struct
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from base import log
from base.audit_chain import GENESIS, Fault, FaultKind, stamp
from base.errors import InputError, SettingsError
from base.settings import Settings

JOURNAL = Path("/run/systemd/journal/socket")
JOURNAL_NAME = "ai-infra-audit"
JOURNAL_FIELD = "AI_INFRA_AUDIT_HEAD"
#: linux/fs.h on 64-bit machines; the argument is an int whatever the number says.
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_APPEND_FL = 0x80086601, 0x40086602, 0x20

logger = log.get(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Row `seq` had `hash` at `signed_at`. `previous`: the hash of head `number` - 1's line."""

    number: int
    seq: int
    hash: str
    signed_at: str
    previous: str
    key: str
    signature: str = ""

    def signed(self) -> bytes:
        """What the signature is over."""
        fields = asdict(self)
        del fields["signature"]
        return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)

    def line(self) -> bytes:
        return orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.line()).hexdigest()


def folder(settings: Settings) -> Path:
    """Where heads and public key lie."""
    return settings.home / "audit"


def heads_path(settings: Settings) -> Path:
    return folder(settings) / "heads.jsonl"


def public_path(settings: Settings) -> Path:
    return folder(settings) / "audit-key.pub"


def private_path(settings: Settings) -> Path:
    return settings.secrets / "audit-key"


def fingerprint(key: Ed25519PublicKey) -> str:
    """The key's short name: the first 32 hexadecimal digits of the SHA-256 of its raw bytes."""
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:32]


def key_name(settings: Settings) -> str | None:
    """The fingerprint of the home's own key; None when we cannot read it."""
    try:
        key = load_pem_private_key(private_path(settings).read_bytes(), password=None)
    except (OSError, ValueError):
        return None
    return fingerprint(key.public_key()) if isinstance(key, Ed25519PrivateKey) else None


def pem(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def public_key(text: str | bytes) -> Ed25519PublicKey:
    """Raises InputError when it is no Ed25519 public key in PEM."""
    try:
        key = load_pem_public_key(text.encode() if isinstance(text, str) else text)
    except ValueError as error:
        raise InputError("this is no public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InputError("this is no Ed25519 key")
    return key


def parse(raw: bytes | str) -> Head | None:
    """The head in a line; None for a line that was never finished."""
    try:
        found = orjson.loads(raw)
        head = Head(**found)
    except (ValueError, TypeError):
        return None
    numbers = all(type(one) is int for one in (head.number, head.seq))
    texts = (head.hash, head.signed_at, head.previous, head.key, head.signature)
    return head if numbers and all(isinstance(one, str) for one in texts) else None


def read(path: Path) -> list[Head]:
    """The heads of a file, in its order; none when there is no file."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [head for head in map(parse, lines) if head is not None]


def check(heads: Iterable[Head], key: Ed25519PublicKey | None) -> list[Fault]:
    """What is wrong among the heads themselves. `key` None: there is none to check with."""
    faults: list[Fault] = []
    before: Head | None = None
    ours = fingerprint(key) if key is not None else ""

    def add(head: Head, said: str, *, forged: bool = False) -> None:
        kind: FaultKind = "signature" if forged else "heads"
        faults.append(Fault(kind=kind, seq=head.seq, said=f"head {head.number} {said}"))

    for head in heads:
        if key is not None and head.key != ours:
            add(head, f"was signed with another key ({head.key})", forged=True)
        elif key is not None and not genuine(head, key):
            add(head, "has a signature that is not of its content", forged=True)
        number, previous = (before.number, before.digest) if before else (0, GENESIS)
        if head.number != number + 1:
            add(head, f"follows head {number}: those between are missing or out of order")
        elif head.previous != previous:
            add(head, "does not follow from the head before it")
        before = head
    return faults


def genuine(head: Head, key: Ed25519PublicKey) -> bool:
    """Whether the key signed the head."""
    try:
        key.verify(bytes.fromhex(head.signature), head.signed())
    except (InvalidSignature, ValueError):
        return False
    return True


class Signer:
    """The private key and the file. One a home: the writer's."""

    def __init__(
        self, key: Ed25519PrivateKey, path: Path, last: Head | None, journal: Path
    ) -> None:
        self._key = key
        self._path = path
        self._journal = journal
        self.last = last
        self.key = fingerprint(key.public_key())

    @classmethod
    def open(cls, settings: Settings, journal: Path = JOURNAL) -> Signer:
        """Make the key at first use, write the public one beside the heads. Raises SettingsError
        when the key cannot be read or made.
        """
        path = private_path(settings)
        try:
            folder(settings).mkdir(mode=0o700, parents=True, exist_ok=True)
            if not path.is_file():
                _make_key(path)
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError) as error:
            raise SettingsError([f"the audit key {path} cannot be used: {error}"]) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SettingsError([f"the audit key {path} is no Ed25519 key"])
        public, ours = public_path(settings), pem(key.public_key())
        if not public.is_file():
            public.write_text(ours, encoding="utf-8")
        elif public.read_text(encoding="utf-8") != ours:
            logger.error("the audit's public key is not this home's", path=str(public))
        found = read(heads_path(settings))
        return cls(key, heads_path(settings), found[-1] if found else None, journal)

    def sign(self, seq: int, row_hash: str) -> Head:
        """Sign, write to disk, tell the journal. Raises OSError when the file cannot be written."""
        number, previous = (self.last.number, self.last.digest) if self.last else (0, GENESIS)
        fields = {
            "number": number + 1, "seq": seq, "hash": row_hash, "previous": previous,
            "signed_at": stamp(datetime.now(UTC)), "key": self.key,
        }  # fmt: skip
        bare = Head(**fields)  # type: ignore[arg-type]
        head = Head(**{**fields, "signature": self._key.sign(bare.signed()).hex()})  # type: ignore[arg-type]
        _append(self._path, head.line())
        self.last = head
        self._tell(head)
        return head

    def _tell(self, head: Head) -> None:
        if not self._journal.exists():
            return
        fields: Mapping[str, str] = {
            "MESSAGE": f"audit head {head.number}: row {head.seq} {head.hash}",
            "PRIORITY": "5",
            "SYSLOG_IDENTIFIER": JOURNAL_NAME,
            JOURNAL_FIELD: head.line().decode(),
        }
        packet = "".join(f"{name}={value}\n" for name, value in fields.items()).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
                line.setblocking(False)
                line.sendto(packet, str(self._journal))
        except OSError as error:
            logger.warning("the journal did not take an audit head", error=str(error))


def _make_key(path: Path) -> None:
    raw = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def _append(path: Path, line: bytes) -> None:
    """One whole line at the end, on disk when it returns. After a torn line it starts anew."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        end = os.fstat(descriptor).st_size
        torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
        packet = (b"\n" if torn else b"") + line + b"\n"
        if os.write(descriptor, packet) != len(packet):
            raise OSError(f"{path} took only part of a line")
        os.fsync(descriptor)
        if end == 0:
            _append_only(descriptor, path)
    finally:
        os.close(descriptor)


def _append_only(descriptor: int, path: Path) -> None:
    """`chattr +a` where we may and the file system knows it; not for a home in /tmp."""
    if os.geteuid() != 0 or path.is_relative_to(tempfile.gettempdir()):
        return
    try:
        raw = fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, struct.pack("l", 0))
        flags = struct.unpack("l", raw)[0] | FS_APPEND_FL
        fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("l", flags))
    except OSError as error:
        logger.info("heads are not append-only here", error=str(error))
