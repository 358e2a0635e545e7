"""Backup, the whole story: an installation that works is backed up while it runs; a drill proves
the backup in another one; everything is wiped and comes back.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from installation import Installation, installation

pytestmark = pytest.mark.xdist_group("backup_path")


@pytest.fixture
def made() -> Iterator[Installation]:
    with installation() as started:
        yield started


@pytest.mark.timeout(400)
def test_backup_drill_wipe_restore(made: Installation) -> None:
    made.cli("memory", "remember", "My boat is called Calypso.")
    made.cli("ask", "--effort", "minimal", "Hello there")
    (made.home / "config" / "models.toml").write_text("")
    done = json.loads(made.cli("backup", "create", "--json").stdout)
    assert done["vectors"] == "copied"
    assert done["notes"] == []
    assert done["counts"]["memories"] >= 1
    key = Path(done["key"])
    drilled = json.loads(made.cli("backup", "drill", "--json").stdout)
    assert drilled["ok"], drilled
    assert drilled["recalled"] >= 1
    assert drilled["task"] == "completed"
    assert drilled["ready_s"] < 15 * 60
    proof = json.loads((made.home / "backup-proofs.json").read_text())["drilled"]
    assert (proof["snapshot"], proof["problem"]) == (done["snapshot"], None)
    assert proof["ready_s"] == drilled["ready_s"]
    made.cli("memory", "remember", "Younger than the backup.")
    made.down()
    kept = key.read_bytes()
    for path in made.home.iterdir():
        if path.name != "backups":
            made.run("chattr", "-R", "-a", str(path), check=False)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    key.parent.mkdir(mode=0o700)
    key.write_bytes(kept)  # from where the owner kept it
    key.chmod(0o600)
    told = json.loads(made.cli("backup", "restore", "--yes", "--json").stdout)
    assert told["snapshot"] == done["snapshot"]
    assert (made.home / "config" / "models.toml").is_file()
    assert json.loads((made.home / "restore.json").read_text())["ended_at"]
    made.up()
    memories = json.loads(made.cli("memory", "search", "boat", "--json").stdout)
    assert memories["items"][0]["memory"]["text"] == "My boat is called Calypso."
    texts = [one["memory"]["text"] for one in memories["items"]]
    assert "Younger than the backup." not in texts
    tasks = json.loads(made.cli("tasks", "list", "--json").stdout)["tasks"]
    assert [one["status"] for one in tasks] == ["completed"]
    assert made.cli("audit", "verify").stdout.rstrip().endswith("nothing was changed")
