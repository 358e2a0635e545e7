"""The portal's certificate: its own, the authority's, renewed and revoked like every other."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from acme_rig import ROOT, Heard, Town, town
from cryptography import x509

from base.errors import ConflictError
from base.verbs import By, CertIssue, CertRevoke
from provision import certbot, front, front_tls, rules
from provision.box import Box
from provision.certs import Certs, names_of
from provision.child import Ended
from provision.spec import Spec
from provision.verbs import cert_issue, cert_revoke

__all__ = ["town"]
SYSTEM = By(role="system")


def of(town: Town) -> Box:
    """Whose nginx.conf is as it is laid here."""
    return replace(town.box, nginx_user="www-data")


def spec(box: Box, domain: str) -> Spec:
    chain, key = front_tls.shown(box, domain)
    return Spec(
        domain=domain,
        kind="portal",
        upstream="http://127.0.0.1:9999",
        certificate=chain,
        key=key,
        challenge_root=box.www / ".acme",
    )


def leaf(town: Town, host: str) -> x509.Certificate:
    return x509.load_der_x509_certificate(town.shown(host, trusted=False))


async def test_its_own_until_the_authority_gives_one_that_is_renewed(town: Town) -> None:
    box, name = of(town), "portal.example"
    await front.lay(box, [spec(box, name)])
    assert front_tls.is_own(box, name)
    assert not front_tls.is_own(box, "other.example")
    assert front_tls.own(box)[1].stat().st_mode & 0o777 == 0o600
    assert leaf(town, name).issuer == leaf(town, name).subject
    said, note = await front.certify(box, name, "http-01")
    assert (said, "portal.example has no address yet" in note) == ([], True)
    assert Certs(box).list() == []

    town.home(name)
    assert await front.certify(box, name, "http-01") == ([f"certificate of {name}"], "")
    assert names_of(x509.load_der_x509_certificate(town.shown(name))) == (name,)
    assert await front.certify(box, name, "http-01") == ([], "")
    assert await front.lay(box, [spec(box, name)]) == []
    assert [cert.domain for cert in Certs(box).list()] == [name]
    assert Certs(box).unloaded() == ()

    before = leaf(town, name).serial_number
    renewed = await town.domains.renew(None, True, Heard())
    assert [cert.domain for cert in renewed] == [name]
    assert leaf(town, name).serial_number not in {before, None}
    assert town.domains.all() == []  # the portal is no domain of people's

    # Another name: the certificate of the old one is renewed no more.
    await front.lay(box, [spec(box, "new.example")])
    assert Certs(box).list() == []
    await front.lay(box, [])


async def test_by_the_verbs_like_every_other(town: Town) -> None:
    box, name = of(town), "verbs.example"
    await front.lay(box, [spec(box, name)])
    request = CertIssue(domain=name)
    with pytest.raises(ConflictError, match="has no address"):
        await cert_issue.VERB.run(request, box, SYSTEM, Heard())
    town.home(name)
    plan = await cert_issue.VERB.plan(request, box)
    assert plan[0] == f"ask the certificate authority for {name} (http-01)"
    said = await cert_issue.VERB.run(request, box, SYSTEM, Heard())
    assert said["certificate"]["domain"] == name
    serial = leaf(town, name).serial_number
    order = CertRevoke(domain=name, reason="keycompromise")
    assert "with a certificate of its own" in (await cert_revoke.VERB.plan(order, box))[1]
    await cert_revoke.VERB.run(order, box, SYSTEM, Heard())
    assert town.authority.status(serial)[0] == "Revoked"
    assert leaf(town, name).issuer == leaf(town, name).subject
    assert Certs(box).list() == []
    assert not Certs(box).paths(name)[0].exists()
    await front.lay(box, [])


async def test_an_authority_that_is_away_leaves_what_was_shown(town: Town) -> None:
    name = "away.example"
    town.home(name)
    away = replace(of(town), acme_url="https://127.0.0.1:1/dir")
    await front.lay(away, [spec(away, name)])
    said, note = await front.certify(away, name, "http-01")
    assert said == []
    assert "cannot be reached" in note
    assert leaf(town, name).issuer == leaf(town, name).subject
    await front.lay(away, [])


def test_an_authority_behind_no_network_is_away_too() -> None:
    """In the words of certbot 2.9 (Ubuntu 24.04) and 4.0 (Debian 13)."""
    said = "ValueError: Requesting a.example/dir: Network is unreachable"
    ended = Ended(code=1, said=f"An unexpected error occurred:\n{said}")
    told = certbot.why(ended, "https://a.example/dir")
    assert told == "the certificate authority at https://a.example/dir cannot be reached"


def test_by_the_command_of_the_installer(town: Town, tmp_path: Path) -> None:
    """Everything of the box from the installer's file; the owner's is laid over it."""
    box = of(town)
    town.home("told.example")
    told = {name: getattr(box, name) for name in ("nginx", "www", "letsencrypt", "nginx_pid")}
    told |= {"nginx_logs": box.nginx_logs, "acme_url": box.acme_url, "acme_ca": box.acme_ca}
    told |= {"nameserver": box.nameserver, "nginx_user": box.nginx_user}
    lines = [f'{name} = "{value}"' for name, value in told.items()]
    lines += [f"http_port = {box.http_port}", f"https_port = {box.https_port}"]
    lines += ['addresses = ["127.0.0.1"]', 'listen = ["127.0.0.1"]', 'state = "/nowhere"']
    (tmp_path / rules.INSTALLED).write_text("[box]\n" + "\n".join(lines) + "\n")
    (tmp_path / "broker.toml").write_text(f'[box]\nstate = "{box.state}"\n')

    def run(*words: str) -> dict[str, object]:
        line = [sys.executable, "-m", "provision.front", "--portal", "told.example", *words]
        env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "AI_INFRA_HOME": str(tmp_path),
            "AI_INFRA_BROKER_CONFIG": str(tmp_path / "broker.toml"),
        }
        done = subprocess.run(line, env=env, cwd=ROOT, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found

    # The folder of its own certificate is /etc/ai-infra alone: here its files are named.
    chain, key = front_tls.shown(replace(box, config=box.letsencrypt), "told.example")
    upstream = ["--upstream", "http://127.0.0.1:9999"]
    made = run(*upstream, "--certificate", str(chain), "--key", str(key), "--challenge", "http-01")
    assert made["changed"] == ["portal at told.example", "certificate of told.example"]
    assert names_of(x509.load_der_x509_certificate(town.shown("told.example")))
    assert town.trusted("told.example").status_code == 503  # nobody is behind it
    assert run(*upstream, "--challenge", "http-01") == {"changed": [], "note": ""}
    assert run(*upstream, "--check") == {"changed": [], "note": ""}
