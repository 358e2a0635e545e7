"""Debian's certbot, asked by argv: one order at a time, and its own words when it fails.

It never sees nginx (no plugin of its, no hooks) and has folders of its own: an owner's
/etc/letsencrypt and Debian's certbot.timer stay what they were.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from base.errors import ConflictError
from base.verbs import Challenge
from provision import cloudflare_access, outside
from provision.box import Box
from provision.child import Ended, command
from provision.disk import write
from provision.turn import turn

ORDER_S = 180.0
REVOKE_S = 60.0
#: The authority may refuse a good nonce at any time; certbot itself asks again only once.
TRIES = 5
#: How long an order waits for another one to end before it is refused.
WAIT_S = 120.0
_NO_EMAIL = "--register-unsafely-without-email"

_UNREACHED = "cannot be reached"
_DETAIL = re.compile(r"^\s*Domain:\s*(\S+)\n\s*Type:\s*(\S+)\n\s*Detail:\s*(.+)$", re.MULTILINE)
#: In the log alone: certbot 2 loses what the authority said to a fault of its own (Python 3.11).
_SAID = re.compile(r"^acme\.messages\.Error: (urn:ietf:params:acme:error:.+)$", re.MULTILINE)
_DOWN = re.compile(
    r"ConnectionError|Connection refused|ConnectionRefused|Max retries exceeded"
    r"|Failed to establish|NewConnectionError|ReadTimeout|ConnectTimeout|Connection aborted"
    r"|RemoteDisconnected|ValueError: Requesting \S+: "
)
_NOISE = re.compile(
    r"^(Saving debug log|Ask for help|See the logfile|Requesting a certificate|Renewing an exist"
    r"|Plugins selected|Account registered|Some challenges have failed|-+|- - -|Unsafe perm"
    r"|Waiting \d+ seconds|An unexpected error occurred:?$|Hint:|Certbot failed to auth)"
)


class AwayError(ConflictError):
    """The authority cannot be reached: another certificate would fare no better now."""


def home(box: Box) -> Path:
    """Accounts, keys and certificates: apart from what an owner's own certbot keeps."""
    return box.letsencrypt / "ai-infra"


def live(box: Box, domain: str) -> tuple[Path, Path]:
    """Where the certificate with its chain and its key are, for nginx."""
    folder = home(box) / "live" / domain
    return folder / "fullchain.pem", folder / "privkey.pem"


def challenges(box: Box) -> Path:
    """What nginx serves under /.well-known/acme-challenge/ on port 80, for every site."""
    return box.www / ".acme"


async def order(box: Box, domain: str, names: Sequence[str], challenge: Challenge) -> None:
    """A new certificate for `names` in the folder of `domain`.

    Raises ConflictError with what the authority said, or when DNS-01 has no token.
    """
    argv = ["certonly", "--cert-name", domain, "--renew-with-new-domains", "--force-renewal"]
    for name in names:
        argv += ["--domain", name]
    async with _turn(box) as held, _authenticator(box, challenge) as how:
        _clear_half(box, domain)
        ended = await _run(box, held, [*argv, *how], ORDER_S)
        for debris in ("keys", "csr"):  # further copies, which nothing reads again
            shutil.rmtree(home(box) / debris, ignore_errors=True)
    if not ended.well:
        said = why(ended, _url(box))
        kind = AwayError if said.endswith(_UNREACHED) else ConflictError
        raise kind(f"no certificate for {domain}: {said}")


async def quiet(box: Box) -> None:
    """Returns when no certbot is at work, also one whose broker was killed."""
    async with _turn(box):
        return


async def revoke(box: Box, domain: str, reason: str) -> None:
    """The authority is told that the certificate is void; its files stay for `forget`."""
    certificate, key = live(box, domain)
    argv = ["revoke", "--cert-path", str(certificate), "--key-path", str(key)]
    argv += ["--reason", reason, "--no-delete-after-revoke"]
    async with _turn(box) as held:
        ended = await _run(box, held, argv, REVOKE_S)
    if not ended.well and "alreadyRevoked" not in ended.said:
        raise ConflictError(f"{domain} was not revoked: {why(ended, _url(box))}")


async def forget(box: Box, domain: str) -> None:
    """Its files are deleted. Twice is safe. Nothing that nginx reads may name them any more."""
    async with _turn(box):
        _delete(box, domain)


def _delete(box: Box, domain: str) -> None:
    (home(box) / "renewal" / f"{domain}.conf").unlink(missing_ok=True)
    for kind in ("live", "archive"):
        shutil.rmtree(home(box) / kind / domain, ignore_errors=True)


def _clear_half(box: Box, domain: str) -> None:
    """What a kill left of a first order: certbot would go beside it, under another name."""
    conf = home(box) / "renewal" / f"{domain}.conf"
    whole = all(path.is_file() for path in live(box, domain))
    if whole and conf.is_file() and "fullchain" in conf.read_text(errors="replace"):
        return
    _delete(box, domain)


def why(ended: Ended, url: str) -> str:
    """What went wrong, in the authority's words where it said any, on one line."""
    if ended.code is None:
        return ended.said
    if told := _DETAIL.findall(ended.said):
        return "; ".join(f"{domain}: {detail.strip()} ({kind})" for domain, kind, detail in told)
    if last := _SAID.findall(ended.said):
        kind, _, words = last[-1].removeprefix("urn:ietf:params:acme:error:").partition(" :: ")
        return f"{words.rpartition(' :: ')[2]} ({kind})"
    if _DOWN.search(ended.said):
        return f"the certificate authority at {url} {_UNREACHED}"
    lines = [line.strip() for line in ended.said.splitlines()]
    kept_lines = [line for line in lines if line and not _NOISE.match(line)]
    return " ".join(kept_lines[-4:])[:600] or f"certbot ended with {ended.code}"


def _url(box: Box) -> str:
    return box.acme_url or "Let's Encrypt"


def _turn(box: Box) -> AbstractAsyncContextManager[int]:
    return turn(box.state / "certbot.lock", what="another certificate", wait_s=WAIT_S)


async def _run(box: Box, held: int, argv: Sequence[str], deadline_s: float) -> Ended:
    work = box.state / "certbot"
    line = ["certbot", *argv, "--non-interactive", "--agree-tos", "--no-eff-email"]
    line += ["--config-dir", str(home(box)), "--work-dir", str(work / "work")]
    line += ["--logs-dir", str(work / "logs"), "--max-log-backups", "20"]
    line += ["--no-directory-hooks", "--no-autorenew"]
    if argv[0] == "certonly":
        line += ["--email", box.acme_email] if box.acme_email else [_NO_EMAIL]
    if box.acme_url:
        line += ["--server", box.acme_url]
    env = {"REQUESTS_CA_BUNDLE": str(box.acme_ca)} if box.acme_ca else {}
    if url := cloudflare_access.url(box):
        env["CLOUDFLARE_API_URL"] = url
    for _ in range(TRIES):
        try:
            ended = await command(line, deadline_s=deadline_s, env=env, inherit=[held])
        except FileNotFoundError as error:
            raise ConflictError("certbot is not installed; run: apt-get install certbot") from error
        if ended.well or ended.code is None:
            break
        said = _SAID.findall(_log(work / "logs" / "letsencrypt.log"))[-1:]
        if said:
            ended = Ended(code=ended.code, said=f"{ended.said}\nacme.messages.Error: {said[0]}")
        if not said or "error:badNonce" not in said[0]:
            break
    return ended


def _log(path: Path) -> str:
    """What certbot wrote of its last run; nothing when it wrote none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


@asynccontextmanager
async def _authenticator(box: Box, challenge: Challenge) -> AsyncIterator[list[str]]:
    """How the names are proved: a file that nginx serves, or a record made at Cloudflare."""
    if challenge == "http-01":
        root = challenges(box)
        shutil.rmtree(root / ".well-known", ignore_errors=True)  # of an order that was killed
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o755)  # nginx's workers read it, whatever our umask is
        yield ["--webroot", "--webroot-path", str(root), "--preferred-challenges", "http"]
        return
    token = await outside.given(box, outside.CLOUDFLARE)
    if token is None:
        raise ConflictError(
            "dns-01 needs Cloudflare, which is not configured: there is no secret cloudflare-token"
        )
    credentials = box.state / "certbot" / "cloudflare.ini"
    line = f"dns_cloudflare_api_token = {token.get_secret_value()}\n"
    write(credentials, line.encode(), mode=0o600)
    try:
        how = ["--dns-cloudflare", "--dns-cloudflare-credentials", str(credentials)]
        how += ["--dns-cloudflare-propagation-seconds", str(box.dns_wait_s)]
        yield [*how, "--preferred-challenges", "dns"]
    finally:
        credentials.unlink(missing_ok=True)
