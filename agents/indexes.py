"""The package indexes that pip and npm on this machine are configured to use.

They are asked for their configuration, never guessed. An index may serve its files from another
host: that one is learned from the index's own answer. What was found is kept in the run folder
until a configuration changes. Credentials in an index's URL stay out here.
"""

from __future__ import annotations

import ast
import asyncio
import hashlib
import itertools
import json
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from agents import runtime_install
from base import log
from base.levels import PACKAGE_INDEXES, Level
from base.settings import Settings

KEEP_S = 6 * 3600.0
#: How long an index that did not answer is left alone, and how long it may take.
RETRY_S, ANSWER_S = 600.0, 3.0
_ASK_S = 20.0
_FILES = (
    "/etc/pip.conf", "/etc/xdg/pip/pip.conf", "~/.config/pip/pip.conf", "~/.pip/pip.conf",
    f"{sys.prefix}/pip.conf", "/etc/npmrc", "/usr/etc/npmrc", "~/.npmrc",
)  # fmt: skip
#: A project that every index of its kind has, and how its files are named in the answer.
_PROBE = {"pip": "pip/", "npm": "npm/latest"}
_LINK = {
    "pip": re.compile(rb"""(?:href=|"url"\s*:\s*)["']([^"'#]+)"""),
    "npm": re.compile(rb'"tarball"\s*:\s*"([^"]+)"'),
}
_ANSWER_BYTES = 4_000_000
_PAGES = 50
_ALWAYS = {
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_BREAK_SYSTEM_PACKAGES": "1",  # `pip install` goes to the private home
    "npm_config_update_notifier": "false",
    "npm_config_fund": "false",
    "npm_config_audit": "false",
}

logger = log.get("hands")


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexes:
    """addresses: "host:port"; paths: files and folders to show; environment: for pip and npm."""

    addresses: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    async def of(cls, settings: Settings, level: Level) -> Indexes:
        """Those of this machine, when `level` may reach them. Never raises: none is an answer."""
        if PACKAGE_INDEXES not in level.network:
            return cls()
        return await asyncio.to_thread(_of, settings.run / "indexes.json")


def _of(cache: Path) -> Indexes:
    key = _key()
    kept = _kept(cache, key)
    if kept is not None:
        return kept
    try:
        pip, npm = _pip(), _npm()
    except (OSError, subprocess.SubprocessError, ValueError, SyntaxError) as error:
        logger.warning("package indexes unknown", error=str(error)[:300])
        return Indexes(environment=_ALWAYS)
    found, whole = read(pip, npm)
    until_s = time.time() + (KEEP_S if whole else RETRY_S)
    told = json.dumps({"key": key, "until_s": until_s, "indexes": asdict(found)})
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        new = cache.with_name(f"{cache.name}.{os.getpid()}")
        new.write_text(told, encoding="utf-8")
        new.replace(cache)
    except OSError as error:
        logger.warning("package indexes not kept", error=str(error))
    return found


def read(pip: Mapping[str, str], npm: Mapping[str, str]) -> tuple[Indexes, bool]:
    """From both configurations by option; False when an index did not tell where its files are."""
    many = ("extra-index-url", "find-links")
    lists = {name: pip.get(name, "").split() for name in many}
    no_index = pip.get("no-index", "").lower() in {"1", "true", "yes", "on"}
    indexes = [] if no_index else [pip.get("index-url", ""), *lists["extra-index-url"]]
    registry = npm.get("registry", "")
    certs = [path for path in (pip.get("cert", ""), npm.get("cafile", "")) if path]
    addresses: dict[str, None] = {}
    whole = True
    for kind, url in (*(("pip", url) for url in indexes if url), ("npm", registry)):
        if address := _address(url):
            hosts = _file_hosts(kind, url, certs)
            whole = whole and bool(hosts)
            addresses |= dict.fromkeys((address, *hosts))
    addresses |= dict.fromkeys(filter(None, map(_address, lists["find-links"])))
    local = (_local(url) for url in (*indexes, *lists["find-links"], *certs))
    environment = {
        "PIP_INDEX_URL": _plain(pip.get("index-url", "")),
        "PIP_EXTRA_INDEX_URL": " ".join(map(_plain, lists["extra-index-url"])),
        "PIP_FIND_LINKS": " ".join(map(_plain, lists["find-links"])),
        "PIP_NO_INDEX": "1" if no_index else "",
        "PIP_CERT": pip.get("cert", ""),
        "PIP_TRUSTED_HOST": " ".join(pip.get("trusted-host", "").split()),
        "PIP_DEFAULT_TIMEOUT": pip.get("default-timeout", pip.get("timeout", "")),
        "npm_config_registry": _plain(registry),
        "npm_config_cafile": npm.get("cafile", ""),
        "NODE_EXTRA_CA_CERTS": npm.get("cafile", ""),
    }
    set_ones = {name: value for name, value in environment.items() if value}
    there = [path for path in local if path and os.path.exists(path)]
    paths = tuple(dict.fromkeys([*there, *(more for path in there for more in _linked(path))]))
    return Indexes(
        addresses=tuple(addresses), paths=paths, environment={**_ALWAYS, **set_ones}
    ), whole


def _key() -> str:
    """Changes whenever a configuration does."""
    digest = hashlib.sha256(sys.prefix.encode())
    for name, value in sorted(os.environ.items()):
        if name.lower().startswith(("pip_", "npm_config_")):
            digest.update(f"{name}={value}\0".encode("utf-8", "replace"))
    for path in _FILES:
        try:
            status = os.stat(os.path.expanduser(path))
        except OSError:
            continue
        digest.update(f"{path} {status.st_mtime_ns} {status.st_size}\0".encode())
    return digest.hexdigest()


def _kept(cache: Path, key: str) -> Indexes | None:
    try:
        told = json.loads(cache.read_text(encoding="utf-8"))
        if told["key"] != key or time.time() > told["until_s"]:
            return None
        found = told["indexes"]
        return Indexes(
            addresses=tuple(found["addresses"]),
            paths=tuple(found["paths"]),
            environment=dict(found["environment"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _pip() -> dict[str, str]:
    """pip's options by name; what is said for `install` or in the environment goes first."""
    default = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    found = {"index-url": _said(sys.executable, "-c", default).strip()}
    lines = _said(sys.executable, "-m", "pip", "config", "list").splitlines()
    rows = [line.partition("=") for line in lines if "=" in line]
    for section in ("global.", "install.", ":env:."):
        for name, _, value in rows:
            if name.startswith(section):
                found[name.removeprefix(section)] = str(ast.literal_eval(value))
    return found


def _npm() -> dict[str, str]:
    """npm's registry and cafile."""
    node, npm = runtime_install.npm()
    told = _said(str(node), str(npm), "config", "get", "registry", "cafile")
    rows = [line.partition("=") for line in told.splitlines() if "=" in line]
    values = {name.strip(): value.strip().strip('"') for name, _, value in rows}
    return {name: value for name, value in values.items() if value not in {"null", "undefined"}}


def _said(*argv: str) -> str:
    ran = subprocess.run(
        argv,
        cwd="/",  # python takes modules, and npm its registry, from the folder it starts in
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_ASK_S,
        check=True,
    )
    return ran.stdout


def _address(url: str) -> str:
    """ "host:port" of a URL, "" when it names no host."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def _local(url: str) -> str:
    """The path of a file: URL or of a plain path; "" for anything else."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return os.path.realpath(unquote(parts.path))
    return os.path.realpath(url) if url.startswith("/") else ""


def _linked(index: str) -> set[str]:
    """The folders outside `index`, an index of files, to which its first pages link."""
    folders: set[str] = set()
    for page in itertools.islice(Path(index).glob("*/index.html"), _PAGES):
        try:
            text = page.read_bytes()[:_ANSWER_BYTES]
        except OSError:
            continue
        for found in _LINK["pip"].findall(text):
            link = urlsplit(urljoin(page.as_uri(), found.decode("utf-8", "replace")))
            path = os.path.realpath(unquote(link.path))
            if link.scheme == "file" and os.path.isfile(path):
                folders.add(os.path.dirname(path))
    return {folder for folder in folders if not Path(folder).is_relative_to(index)}


def _plain(url: str) -> str:
    """The URL without credentials."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _file_hosts(kind: str, index: str, certs: Iterable[str]) -> tuple[str, ...]:
    """ "host:port" of where `index` answers from and keeps its files; empty: it did not tell."""
    import httpx2  # a fifth of an agent's start, for what is asked once in six hours

    context = ssl.create_default_context()
    url = urljoin(index.rstrip("/") + "/", _PROBE[kind])
    try:
        for path in certs:
            context.load_verify_locations(path)
        with (
            httpx2.Client(verify=context, follow_redirects=True, timeout=ANSWER_S) as client,
            client.stream("GET", url, headers={"Accept": "text/html, application/json"}) as answer,
        ):
            answer.raise_for_status()
            body = bytearray()
            for piece in answer.iter_bytes():
                body += piece
                if len(body) > _ANSWER_BYTES:
                    break
            base = str(answer.url)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        logger.warning("package index silent", index=_address(index), error=type(error).__name__)
        return ()
    links = {urljoin(base, found.decode("utf-8", "replace")) for found in _LINK[kind].findall(body)}
    return tuple(sorted({address for link in (base, *links) if (address := _address(link))}))
