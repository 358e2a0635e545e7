"""The sites and the root broker's record of them in a backup: kept, lost, put back, put aside."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from base.backup import create as making
from base.backup import restore, rules, running, sites
from base.backup.restic import Restic
from base.errors import BackupError
from base.settings import Settings
from tests.backup.conftest import Home, say

CHANGE, DOMAIN = "nginx/changes/20260101T000000.json", "domains/one.example.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A home as of the appliance, whose folders of the machine lie below `root`."""

    settings: Settings
    root: Path
    told: list[str] = field(default_factory=list)

    def at(self, path: str) -> Path:
        return self.root / path

    def files(self) -> dict[str, str]:
        """What there is of the sites, but for what was put aside; links as what they say."""
        found = {}
        for place in (sites.NGINX, sites.WWW, sites.RECORD):
            for path in sorted(place.rglob("*")):
                name = str(path.relative_to(self.root))
                if restore.BEFORE in name:
                    continue
                if path.is_symlink():
                    found[name] = f"-> {path.readlink()}"
                elif path.is_file():
                    found[name] = path.read_text()
        return found

    def restored(self, **more: Any) -> restore.Restored:
        return asyncio.run(restore.restore(self.settings, say, parts=("sites",), **more))


@pytest.fixture
def server(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    root = tmp_path / "root"
    places = {"NGINX": "etc/nginx/ai-infra", "WWW": "var/www", "RECORD": "var/lib/ai-broker"}
    for name, path in places.items():
        monkeypatch.setattr(sites, name, root / path)
    for name, path in {"ETC": "etc/ai-infra", "CERTIFICATES": "etc/letsencrypt"}.items():
        monkeypatch.setattr(making, name, root / path)
        monkeypatch.setattr(restore, name, root / path)
    five = (restore.ETC, restore.CERTIFICATES, sites.NGINX, sites.RECORD, sites.WWW)
    monkeypatch.setattr(restore, "ONE_BY_ONE", five)
    monkeypatch.setattr(restore, "SERVED", five[:3])
    monkeypatch.setattr(rules, "APPLIANCE", root / "etc/ai-infra")
    monkeypatch.setattr(rules, "APPLIANCE_PLACE", str(root / "var/backups"))
    settings = Settings(
        home=home.path, redis_url=None, postgres_dsn=None, broker=tmp_path / "broker.sock"
    )
    made = Server(settings=settings, root=root)

    async def stopped(settings: Settings) -> bool:
        return False

    async def serve(settings: Settings) -> list[str]:
        made.told.append("nginx")
        return ["two.example is set aside: its certificate is gone"]

    monkeypatch.setattr(running, "runs", stopped)
    monkeypatch.setattr(running, "serve", serve)
    _lay(made)
    asyncio.run(making.create(settings, say))
    return made


def _lay(server: Server) -> None:
    one = {"domain": "one.example", "kind": "static", "enabled": True,
           "root": str(sites.WWW / "one.example/current"),
           "certificate": str(restore.CERTIFICATES / "live/one.example/fullchain.pem"),
           "key": "/home/owner/key.pem"}  # fmt: skip
    two = one | {"domain": "two.example", "kind": "proxy", "root": None, "certificate": None,
                 "key": None, "enabled": False}  # fmt: skip
    generation = sites.NGINX / "generations/1"
    for path, text in {
        generation / "specs.json": json.dumps({"specs": [one, two], "problems": {}}),
        generation / "sites-available/one.example.conf": "server {}",
        sites.WWW / "one.example/releases/1/index.html": "as it was",
        sites.WWW / "owner/index.html": "the owner's",
        sites.RECORD / CHANGE: "{}",
        sites.RECORD / DOMAIN: "{}",
        sites.RECORD / "journal.jsonl": "then",
        sites.RECORD / "audit/1.json": "then",
        restore.CERTIFICATES / "archive/one.example/1.pem": "a certificate",
        restore.ETC / "settings.env": "",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (sites.NGINX / "current").symlink_to("generations/1")
    (sites.WWW / "one.example/current").symlink_to("releases/1")
    live = restore.CERTIFICATES / "live/one.example"
    live.mkdir(parents=True)
    (live / "fullchain.pem").symlink_to("../../archive/one.example/1.pem")


def test_what_is_lost_of_the_sites_comes_back(server: Server) -> None:
    before = server.files()
    shutil.rmtree(sites.NGINX)
    shutil.rmtree(sites.RECORD / "nginx")
    (sites.WWW / "one.example/releases/1/index.html").write_text("changed")
    (sites.WWW / "younger.example").mkdir()
    (sites.WWW / "younger.example/index.html").write_text("stays")
    (sites.WWW / "owner/index.html").write_text("changed by the owner")
    for name in ("journal.jsonl", "audit/1.json"):
        (sites.RECORD / name).write_text("now")
    done = server.restored()
    assert server.files() == before | {
        "var/www/younger.example/index.html": "stays",
        "var/www/owner/index.html": "changed by the owner",
        "var/lib/ai-broker/journal.jsonl": "now",
        "var/lib/ai-broker/audit/1.json": "now",
    }
    assert server.told == ["nginx"]
    assert done.notes == ("two.example is set aside: its certificate is gone",)
    kept = list(sites.WWW.glob(f"{restore.BEFORE}*/one.example/releases/1/index.html"))
    assert [path.read_text() for path in kept] == ["changed"]


def test_what_is_not_of_what_was_done_is_in_no_backup(server: Server, tmp_path: Path) -> None:
    restic = Restic.of(server.settings, rules.load(server.settings))
    asyncio.run(restic.restore("latest", tmp_path / "all", ["/"]))
    found = {path.name for path in (tmp_path / "all").rglob("*") if path.is_file()}
    assert {"index.html", "specs.json", Path(CHANGE).name, Path(DOMAIN).name} <= found
    assert not found & {"journal.jsonl", "backup.key"}
    assert not list((tmp_path / "all").rglob("owner"))


class Died(BaseException):
    """As if the process had been killed here."""


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_a_restore_of_sites_that_was_cut_off_is_put_back(
    server: Server, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    (sites.WWW / "one.example/releases/1/index.html").write_text("changed")
    (sites.RECORD / DOMAIN).write_text("changed")
    before, ahead = server.files(), restore.moves.ahead

    def cut(planned: Any) -> None:
        ahead(planned[:steps])
        raise Died

    monkeypatch.setattr(restore.moves, "ahead", cut)
    with pytest.raises(Died):
        server.restored()
    assert asyncio.run(restore.undo(server.settings, say))
    assert server.files() == before
    assert server.told == ["nginx"]


def test_an_nginx_that_cannot_be_told_is_no_reason_to_go_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(settings: Settings) -> list[str]:
        raise BackupError("nginx does not run; start it and ask again")

    monkeypatch.setattr(running, "serve", serve)
    (sites.WWW / "one.example/releases/1/index.html").write_text("changed")
    done = server.restored()
    assert "nginx does not serve it yet: nginx does not run" in done.notes[0]
    assert (sites.WWW / "one.example/current/index.html").read_text() == "as it was"


LOST: list[tuple[Callable[[Path], Path], str]] = [
    (lambda root: root / "var/www/one.example/releases/1", "current is not in it"),
    (lambda root: root / "etc/letsencrypt/archive", "fullchain.pem is not in it"),
    (lambda root: root / "etc/nginx/ai-infra/generations", "cannot be read"),
]


def test_a_drill_says_what_a_snapshot_lacks(server: Server, tmp_path: Path) -> None:
    among = (restore.ETC, restore.CERTIFICATES)
    for number, (lost, said) in enumerate(LOST):
        copy = tmp_path / str(number)
        shutil.copytree(server.root, copy / str(server.root).lstrip("/"), symlinks=True)
        assert sites.faults(copy, among) == (1, [])  # the owner's own key is the owner's to keep
        shutil.rmtree(lost(copy / str(server.root).lstrip("/")))
        assert said in " ".join(sites.faults(copy, among)[1])
