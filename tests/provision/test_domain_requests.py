"""Hostile names and fields: refused in words by the shapes that every face shares, before anything
is looked up or made.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import idna
import pytest
from pydantic import ValidationError

from base.errors import AIError
from base.verbs import VERBS, DomainAdd
from provision import first_page
from provision.box import Box
from provision.domains import Domains
from provision.managed import wanted

LONG = "a" * 64
NAMES = [
    "",
    " ",
    ".",
    "..",
    "../../etc/passwd",
    "example.org/../../x",
    "example.org/",
    "/etc/nginx",
    "localhost",
    "example",
    "-example.org",
    "example-.org",
    "exa mple.org",
    "example.org; rm -rf /",
    "$(reboot).org",
    "`reboot`.org",
    "example.org\nserver_name evil.org",
    "example.org\r\nHost: evil",
    "example.org\0.evil",
    "example.org{",
    "example.org;}",
    "*.example.org",
    "_.example.org",
    "under_score.org",
    "example..org",
    ".example.org",
    "example.org:8080",
    "user@example.org",
    "https://example.org",
    "127.0.0.1",
    "2130706433",
    "0x7f.1",
    "1.2.3",
    "[::1]",
    "::1",
    "169.254.169.254",
    f"{LONG}.org",
    ".".join(["a" * 60] * 5),
    "xn--a.org",
    "xn--zzzzzzz---.org",
    "ex\u202emple.org",
    "example.org\u2044etc",
    "\u2603.example.org\u0000",
    "--config-dir.org",
    "~.example.org",
    "%2e%2e.org",
    "<script>.org",
    "'.or.'1.org",
]
FIELDS: list[tuple[str, dict[str, object]]] = [
    ("domain.add", {"domain": "a.org", "kind": "proxy"}),
    ("domain.add", {"domain": "a.org", "kind": "proxy", "upstream": "http://169.254.169.254:80"}),
    ("domain.add", {"domain": "a.org", "kind": "proxy", "upstream": "http://127.0.0.1:80;evil"}),
    ("domain.add", {"domain": "a.org", "kind": "proxy", "upstream": "http://127.0.0.1:99999"}),
    ("domain.add", {"domain": "a.org", "kind": "proxy", "upstream": "http://127.0.0.1@evil:80"}),
    ("domain.add", {"domain": "a.org", "kind": "proxy", "upstream": "unix:/run/docker.sock"}),
    ("domain.add", {"domain": "a.org", "kind": "proxy", "upstream": "http://127.0.0.1:8000/x"}),
    ("domain.add", {"domain": "a.org", "kind": "static", "upstream": "http://127.0.0.1:8000"}),
    ("domain.add", {"domain": "a.org", "kind": "redirect"}),
    ("domain.add", {"domain": "a.org", "kind": "redirect", "target": "a.org"}),
    ("domain.add", {"domain": "a.org", "kind": "redirect", "target": "javascript:alert(1)"}),
    ("domain.add", {"domain": "a.org", "kind": "redirect", "target": "evil.org/$request_uri"}),
    ("domain.add", {"domain": "a.org", "kind": "alias"}),
    ("domain.add", {"domain": "a.org", "subdomains": ["www;"]}),
    ("domain.add", {"domain": "a.org", "subdomains": ["*"]}),
    ("domain.add", {"domain": "a.org", "subdomains": ["-d"]}),
    ("domain.add", {"domain": "a.org", "subdomains": ["a.b"]}),
    ("domain.add", {"domain": "a.org", "subdomains": ["www\n"]}),
    ("domain.add", {"domain": "a.org", "subdomains": ["x"] * 21}),
    ("domain.add", {"domain": "a.org", "challenge": "tls-alpn-01"}),
    ("domain.add", {"domain": "a.org", "challenge": "--manual"}),
    ("domain.add", {"domain": "a.org", "root": "/etc"}),
    ("domain.add", {"domain": "a.org", "hook": "reboot"}),
    ("domain.remove", {"domain": "a.org", "revoke": "perhaps"}),
    ("domain.remove", {"domain": ["a.org"]}),
    ("domain.list", {"all": True}),
    ("cert.issue", {"domain": "a.org", "challenge": "http-01 --standalone"}),
    ("cert.renew", {"domain": "a.org", "force": "very"}),
    ("cert.revoke", {"domain": "a.org", "reason": "keycompromise --all"}),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "verb", ["domain.add", "domain.remove", "cert.issue", "cert.renew", "cert.revoke"]
)
def test_names_that_are_none(verb: str, name: str) -> None:
    with pytest.raises(ValidationError) as refused:
        VERBS[verb].model_validate({"domain": name})
    assert refused.value.errors()[0]["loc"] == ("domain",)


@pytest.mark.parametrize(("verb", "fields"), FIELDS)
def test_fields_that_cannot_be(verb: str, fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        VERBS[verb].model_validate(fields)


@pytest.mark.parametrize(
    ("written", "known"),
    [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        (" example.org ", "example.org"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("exa\u200bmple.org", "example.org"),
        ("faß.de", "xn--fa-hia.de"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("a-b.c--d.example", "a-b.c--d.example"),
    ],
)
def test_names_that_are(written: str, known: str) -> None:
    asked = DomainAdd(domain=written, subdomains=("www", "www"))
    assert wanted(asked).names == (known, f"www.{known}")


def test_a_name_that_is_too_long_with_its_label(tmp_path: Path) -> None:
    domain = ".".join(["a" * 59] * 4) + ".org"
    asked = DomainAdd(domain=domain, subdomains=("a" * 60,))
    box = replace(Box(), state=tmp_path / "state", nginx=tmp_path / "nginx")
    with pytest.raises(AIError, match="a domain is labels"):
        Domains(box).aim(asked)
    assert list(tmp_path.iterdir()) == []


def test_the_first_page_escapes_whatever_a_name_is() -> None:
    page = first_page.page("<script>alert(1)</script>&\"'.org")
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#x27;.org" in page
    assert f"<title>{idna.decode('xn--bcher-kva.example')}</title>" in first_page.page(
        "xn--bcher-kva.example"
    )
