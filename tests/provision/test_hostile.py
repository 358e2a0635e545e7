"""Forty fields that somebody hostile would write: each refused, before anything is done."""

from __future__ import annotations

from typing import Any

import pytest

from tests.provision.rig import Rig

LONG = "a" * 64
FIELDS: list[tuple[str, dict[str, Any]]] = [
    *(
        ("domain.add", {"domain": one})
        for one in (
            "", ".", "localhost", "*.example.org", "127.0.0.1", "[::1]", "example.org:80",
            "example.org/x", "exa mple.org", "example.org;include /etc/passwd",
            "../../etc/passwd", "-a.example.org", "a-.example.org", "a..org", f"{LONG}.org",
            "$(id).org", "`id`.org", "example.org{", "exa\0mple.org", "example.123",
            "xn--\u202e.org",
            "a_b.example.org", "http://example.org", "xn--a.example.org",
        )
    ),
    ("domain.add", {"domain": "example.org\nserver_name evil.org"}),
    ("domain.add", {"domain": "example.org", "kind": "proxy", "upstream": "http://169.254.169.254:80"}),
    ("domain.add", {"domain": "example.org", "kind": "proxy", "upstream": "http://127.0.0.1:80/;x"}),
    ("domain.add", {"domain": "example.org", "kind": "proxy", "upstream": "unix:/run/x.sock"}),
    ("domain.add", {"domain": "example.org", "kind": "proxy", "upstream": "http://127.0.0.1:99999"}),
    ("domain.add", {"domain": "example.org", "kind": "redirect", "target": "evil.org; return 200"}),
    ("domain.add", {"domain": "example.org", "subdomains": ["www;", "x"]}),
    ("domain.add", {"domain": "example.org", "subdomains": ["../up"]}),
    ("domain.add", {"domain": "example.org", "command": "id"}),
    ("domain.add", {"domain": ["example.org"]}),
    ("site.deploy", {"domain": "example.org", "source": {"kind": "upload", "name": "../x.tar"}}),
    ("site.deploy", {"domain": "example.org", "source": {"kind": "git", "url": "ext::sh -c id"}}),
    ("site.deploy", {"domain": "example.org", "source": {"kind": "git", "url": "https://u:p@h/x"}}),
    ("site.deploy", {"domain": "example.org", "source": {"kind": "git", "url": "https://h/x",
                                                         "ref": "--upload-pack=id"}}),
    ("unit.restart", {"unit": "web.service --now"}),
    ("unit.restart", {"unit": "--root=/mnt"}),
    ("unit.status", {"unit": "../web.service"}),
    ("docker.logs", {"container": "shop;id"}),
    ("docker.logs", {"container": "shop", "lines": 1_000_000}),
    ("nginx.undo", {"change": "../../x"}),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "request_"), FIELDS)
def test_a_hostile_field_is_refused(rig: Rig, verb: str, request_: dict[str, Any]) -> None:
    before = rig.did
    for dry_run in (True, False):
        said = rig.order(verb, request_, dry_run=dry_run, role="admin")
        assert (said["ok"], said["kind"]) == (False, "InputError"), said
        assert said["error"].startswith(f"{verb}: ")
    assert rig.did == before


def test_there_are_forty() -> None:
    assert len(FIELDS) >= 40
