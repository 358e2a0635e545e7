"""config/broker.toml: what is laid over, and every fault by its name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from base.errors import SettingsError
from base.verbs import VERBS
from provision import registry, rules
from provision.box import Box


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.toml"


def test_the_shipped_file_and_the_owners_over_it(path: Path) -> None:
    shipped = rules.load(path)
    assert "nginx.service" in shipped.box.units
    assert shipped.box.containers == ()
    assert shipped.peers.agents == ("ai",)
    assert shipped.box.state == Path("/var/lib/ai-broker")
    path.write_text(
        'units = ["web.service"]\n[peers]\nagents = ["@crew"]\n'
        '[box]\nnginx = "/opt/nginx"\nhttp_port = 8080\nacme_email = "me@example.org"\n'
        '[verbs."unit.restart"]\napproval = "person"\ndeadline_s = 9\n'
        '[verbs."docker.ps"]\nenabled = false\n'
    )
    own = rules.load(path, Box(inbox=Path("/srv/inbox")))
    assert own.box.units == ("web.service",)
    assert own.peers.agents == ("@crew",)
    assert own.peers.people == shipped.peers.people
    assert (own.box.nginx, own.box.http_port) == (Path("/opt/nginx"), 8080)
    assert (own.box.inbox, own.box.acme_email) == (Path("/srv/inbox"), "me@example.org")
    verbs = registry.collect()
    told = own.of(verbs["unit.restart"])
    assert (told.approval, told.deadline_s) == ("person", 9)
    assert own.of(verbs["unit.status"]) is verbs["unit.status"]
    assert not own.enabled("docker.ps")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("units = [", "Invalid value (at end of document)"),
        ("colour = 1", "colour: Extra inputs"),
        ('units = ["nginx"]', "units: 'nginx' must be a unit with its ending"),
        ('units = ["ai-provision.service"]', "units: ai-provision.service is the broker itself"),
        ('units = ["../x.service"]', "units.0: String should match"),
        ('containers = ["a b"]', "containers.0: String should match"),
        ('peers = { people = ["Root"] }', "peers.people: 'Root' must be the name of a user"),
        ("peers = { crew = [] }", "peers.crew: Extra inputs"),
        ('[verbs."rm.all"]\nenabled = true', "verbs: there is no verb 'rm.all'"),
        ('[verbs."unit.restart"]\napproval = "yes"', "verbs.unit.restart.approval: "),
        ('[verbs."unit.restart"]\ndeadline_s = 0', "verbs.unit.restart.deadline_s: "),
        ('[box]\nroot = "/mnt"', "box.root: unknown"),
        ('[box]\nnginx = "etc/nginx"', "box.nginx: must be absolute"),
        ('[box]\nhttp_port = "many"', "box.http_port: Input should be a valid integer"),
    ],
)
def test_each_fault_is_named(path: Path, text: str, told: str) -> None:
    path.write_text(text + "\n")
    with pytest.raises(SettingsError) as caught:
        rules.load(path)
    assert str(path) in str(caught.value)
    assert told in str(caught.value)


def test_what_changes_something_always_has_a_rule(path: Path) -> None:
    path.write_text('[verbs."unit.restart"]\napproval = "none"\n')
    with pytest.raises(SettingsError, match=r'verbs\."unit\.restart"\.approval'):
        rules.load(path).of(registry.collect()["unit.restart"])


def test_only_root_may_have_written_it(path: Path) -> None:
    path.write_text("containers = []\n")
    path.chmod(0o664)
    with pytest.raises(SettingsError, match="can be written by others"):
        rules.load(path)
    path.chmod(0o644)
    assert rules.load(path).box.containers == ()
    path.parent.chmod(0o777)
    with pytest.raises(SettingsError, match="can be written by others"):
        rules.load(path)
    path.parent.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(path, 65_534, 65_534)
        with pytest.raises(SettingsError, match="belongs to user 65534"):
            rules.load(path)


def test_every_verb_is_one_that_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    found = registry.collect()
    assert {"unit.restart", "unit.status", "docker.ps", "docker.logs", "docker.restart"} <= {*found}
    assert registry.check(found) == []
    changed: dict[str, Any] = dict(VERBS) | {"unit.status": VERBS["docker.ps"]}
    monkeypatch.setattr(registry, "VERBS", changed)
    assert "base/verbs.py does not ask it" in registry.check(found)[0]
