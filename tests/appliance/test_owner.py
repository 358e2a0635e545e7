"""A server that was somebody's before: what is theirs stays, through installing, removing without
the data, installing again by the script from a URL, and removing all of it.

In order, on one machine; a second server, so only when it is asked for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from appliance_machine import SOURCE, Machine, booted

pytestmark = [
    pytest.mark.xdist_group("appliance"),
    pytest.mark.timeout(2400),
    pytest.mark.skipif(
        not os.environ.get("AI_INFRA_TEST_OWNER"),
        reason="a second server takes long: AI_INFRA_TEST_OWNER=1 ./tests/run.sh tests/appliance",
    ),
]

LIMIT_S = 1_200.0
WORD = "petrel-4410"
SHOP = 'server { listen 80; listen [::]:80; server_name shop.example; return 200 "the shop"; }\n'
OWNER = {
    "/etc/nginx/sites-available/shop": SHOP,
    "/etc/ssh/sshd_config.d/10-owner.conf": "ClientAliveInterval 77\n",
    "/etc/systemd/system/nginx.service.d/owner.conf": "[Service]\nMemoryMax=333M\n",
    "/root/owner.txt": "stays\n",
    "/etc/hosts": "127.0.0.1 localhost\n",
}
BEFORE = f"""
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -q --no-install-recommends nginx redis-server postgresql nftables
ln -s ../sites-available/shop /etc/nginx/sites-enabled/shop
systemctl daemon-reload && systemctl restart nginx postgresql redis-server
redis-cli set boat {WORD} && redis-cli save
runuser -u postgres -- psql -XAtqc "CREATE DATABASE shop"
runuser -u postgres -- psql -XAtqd shop -c "CREATE TABLE boats AS SELECT '{WORD}' AS name"
nft 'add table inet owner; add chain inet owner in {{ type filter hook input priority 0; }}'
nft add rule inet owner in tcp dport 4444 drop
ssh-keygen -q -t ed25519 -N '' -f /root/key
"""
THEIRS = """
curl -s -H 'Host: shop.example' http://127.0.0.1/ && echo
redis-cli get boat
runuser -u postgres -- psql -XAtqd shop -c 'SELECT name FROM boats'
nft list table inet owner | grep -c 4444
sshd -T | grep -c 'clientaliveinterval 77'
systemctl show nginx -P MemoryMax
"""
AS_BEFORE = f"the shop\n{WORD}\n{WORD}\n1\n1\n{333 * 1024 * 1024}\n"
MADE, CLUSTER = "/usr/local/src", "/var/lib/postgresql/"


@pytest.fixture(scope="module")
def server() -> Iterator[Machine]:
    with booted(OWNER, "git") as machine:
        machine.run(BEFORE, limit_s=300)
        key = (machine.root / "root/key.pub").read_text().strip()
        (machine.root / "root/vars.yml").write_text(json.dumps({"users_admin_keys": [key]}))
        clone = ["git", "clone", "-q", "--bare", str(SOURCE), str(machine.root / "srv/src.git")]
        subprocess.run(clone, check=True)
        yield machine


@pytest.fixture(scope="module")
def before(server: Machine) -> set[str]:
    return server.files()


def theirs(server: Machine) -> str:
    return server.run(THEIRS, check=False).stdout


def test_looking_ahead_changes_nothing(server: Machine, before: set[str]) -> None:
    assert theirs(server) == AS_BEFORE
    look = "/src/install.sh --appliance --check --vars /root/vars.yml"
    said = server.run(look, limit_s=300, check=False)
    assert sorted(server.files() ^ before) == []
    if said.returncode == 3:  # it needs what a bare box may lack, and says so
        assert "python3-venv is needed" in said.stderr
        server.run("apt-get install -y -q --no-install-recommends python3-venv", limit_s=120)
        before |= server.files()
        said = server.run(look, limit_s=300, check=False)
    assert said.returncode == 0, said.stdout[-3000:] + said.stderr[-2000:]
    assert "would change: app: Settings that all units read" in said.stdout
    assert "would be changed=" in said.stdout
    assert sorted(server.files() ^ before) == []
    assert theirs(server) == AS_BEFORE


def test_piped_it_installs_beside_what_is_theirs(server: Machine) -> None:
    pipe = "cat /src/install.sh | AI_INFRA_SOURCE=/srv/src.git bash -s --"
    done = server.run(f"{pipe} --yes --vars /root/vars.yml", limit_s=LIMIT_S, check=False)
    log = server.root / "var/log/ai-infra/install.log"
    if log.exists():
        kept = Path(__file__).parents[1] / "artifacts" / "install-owner.log"
        kept.parent.mkdir(exist_ok=True)
        shutil.copyfile(log, kept)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    report = json.loads((server.root / "var/log/ai-infra/attestation.json").read_text())
    proofs = {proof["name"]: proof["found"] for proof in report["proofs"]}
    assert "restored and at work" in proofs["backup"]
    assert theirs(server) == AS_BEFORE
    # Their nginx keeps the limits that they gave it, and gets none of ours.
    assert not (server.root / "etc/systemd/system/nginx.service.d/10-ai-infra.conf").exists()


def test_again_changes_nothing(server: Machine) -> None:
    line = "cd /opt/ai-infra/current && .venv/bin/python -m provision.runner --json"
    release = "$(realpath /opt/ai-infra/current)"
    said = server.run(
        f"{line} --vars /etc/ai-infra/vars.yml --set ai_release={release}", limit_s=LIMIT_S
    )
    summary = json.loads(said.stdout)
    assert summary["changed"] == 0, summary["changes"]
    one = server.run(f"{line} --tags nginx --set ai_release={release}", limit_s=LIMIT_S)
    assert json.loads(one.stdout)["changed"] == 0
    look = server.run("/src/install.sh --appliance --check", limit_s=300)
    assert "would be changed=" in look.stdout
    assert "nginx" not in "".join(line for line in look.stdout.splitlines() if "would" in line)


def test_removed_without_purging_the_data_stay(server: Machine) -> None:
    server.run(f"ai-infra memory remember 'The word of the pier is {WORD}.'")
    server.run("/src/install.sh --appliance --uninstall --yes", limit_s=LIMIT_S)
    assert theirs(server) == AS_BEFORE
    assert server.run("ls -d /opt/ai-infra", check=False).returncode != 0
    assert server.run("ls /etc/systemd/system | grep ^ai-", check=False).stdout == ""
    assert server.run("nft list tables").stdout == "table inet owner\n"
    kept = "SELECT count(*) > 0 FROM users"
    psql = f"runuser -u postgres -- psql -XAtqd ai_infra -c '{kept}'"
    assert server.run(psql).stdout == "t\n"
    assert server.run("ls /var/lib/ai-infra /var/backups/ai-infra").stdout


def test_installed_again_it_finds_them(server: Machine) -> None:
    done = server.run("/src/install.sh --appliance --yes --no-task", limit_s=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    found = server.run("ai-infra memory search 'the word of the pier' --json").stdout
    assert WORD in found
    assert theirs(server) == AS_BEFORE


def test_purged_what_was_theirs_is_all_there_is(server: Machine, before: set[str]) -> None:
    server.run("/src/install.sh --appliance --uninstall --purge --yes", limit_s=LIMIT_S)
    assert theirs(server) == AS_BEFORE
    psql = "runuser -u postgres -- psql -XAtqc"
    assert server.run(f"{psql} 'SELECT datname FROM pg_database ORDER BY 1'").stdout.split() == [
        "postgres", "shop", "template0", "template1",
    ]  # fmt: skip
    assert server.run(f"{psql} 'SELECT rolname FROM pg_roles WHERE oid > 16383'").stdout == ""
    # Files within their cluster are its own affair: it keeps maps of its free space, too.
    after = {path for path in server.files() if not path.startswith((MADE, CLUSTER))}
    assert sorted(after - before) == []
    gone = before - after
    assert sorted(path for path in gone if not path.startswith((MADE, CLUSTER))) == []
    for path, text in OWNER.items():
        assert (server.root / path[1:]).read_text() == text
