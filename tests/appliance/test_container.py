"""The whole story of a server: installed though killed thrice, used, lost and restored, updated,
rebooted, uninstalled.

In order, on one machine: each step stands on the one before.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from appliance_machine import PIP, Machine, booted
from appliance_town import Person, Town, ask, get, registry, town

from base.settings import OWNER_EMAIL
from portal.auth import ADMIN_ID, ENDED

pytestmark = [
    pytest.mark.xdist_group("appliance"),
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        os.environ.get("AI_INFRA_TEST_SERVER") == "0", reason="AI_INFRA_TEST_SERVER is 0"
    ),
]

MOMENTS = ("Debian packages]", "TASK [app", "TASK [nginx")
#: Of what pip compiles elsewhere that which is used: each start would do it again.
COMPILE = """cd /opt/ai-infra/releases/0.1.0 && .venv/bin/python -c '
import ansible_runner, sentence_transformers
import agents.__main__, pai.__main__, portal.__main__, portal.cli
import provision.__main__, supervisor.__main__, workers.__main__'"""
INSTALL = "/src/install.sh --appliance --yes --vars /root/vars.yml"
OWNER = {
    "/etc/ssh/sshd_config.d/10-owner.conf": "ClientAliveInterval 77\n",
    "/root/owner.txt": "stays\n",
    "/etc/hosts": "127.0.0.1 localhost\n",
    "/etc/tmpfiles.d/owner.conf": "# stays\n",
}
LIMIT_S = 900.0
#: Packages and the hands' runtime anew, by a unit that has one core at most.
SLOWLY_S = 1_800.0
#: The server's own name, that of a site which its agent looks after, and one that is lost.
PORTAL, SITE, KEPT = "server.example", "site.example", "kept.example"
PAGE = "<h1>made by the agent</h1>"
WORKSPACE = f"/var/lib/ai-infra/workspaces/{ADMIN_ID}/main"
WORD = "heron-7731"
SEARCH = "ai-infra memory search 'the word of the cellar door' --json"
#: What is told after a backup, and is no more when that is restored.
LATER = "wren-4410"
LAMP = "ai-infra memory search 'who lights the lamp of the boathouse' --json"
PASSWORD = "seven small herons"
#: Who may do what with the database, and as whom.
GRANTS = """SELECT datdba::regrole, datacl, encoding, datcollate,
 (SELECT array_agg((setrole::regrole, setconfig)::text
 ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid)
 FROM pg_database d WHERE datname = current_database()"""
TALK = (
    "SELECT id, title FROM conversations ORDER BY id; SELECT id, content FROM messages ORDER BY id"
)
KEPT_ROWS = f"runuser -u postgres -- psql -XAtq -d ai_infra -c '{GRANTS}' -c '{TALK}'"
#: Units by the drop-in that the installer gives them.
LIMITED = {
    "nginx": "10-ai-infra", "postgresql@": "10-ai-infra", "ai-api": "50-limits",
    "ai-agents": "50-limits", "ai-workers@": "50-limits",
}  # fmt: skip
BROKER = "systemctl show -P MainPID ai-provision"
#: From the loss of everything to a system that answers.
RTO_S = 900.0
LOSE = f"""v=$(pg_lsclusters -h | cut -d' ' -f1)
pg_dropcluster --stop $v main && pg_createcluster --start $v main >/dev/null
cd /var/lib/ai-infra && rm -rf data/qdrant/* MEMORY/* workspaces/* secrets/*
rm -rf /etc/nginx/ai-infra /var/www/{KEPT} /etc/letsencrypt/ai-infra
cd /var/lib/ai-broker && rm -rf nginx domains releases certs && systemctl reload nginx"""


@pytest.fixture(scope="module")
def server() -> Iterator[Machine]:
    """A bare server with things of its owner's on it."""
    with booted(OWNER, "pebble") as machine:
        machine.run("ssh-keygen -q -t ed25519 -N '' -f /root/key")
        with town(machine.network(), machine.folder, PORTAL, SITE, KEPT) as world:
            _settle(machine, world)
            yield machine


def _settle(machine: Machine, world: Town) -> None:
    """The server trusts the authority, and the installer's variables name it."""
    roots = world.ca.read_text()
    (machine.root / "usr/local/share/ca-certificates/tests.crt").write_text(roots)
    (machine.root / "root/roots.pem").write_text(roots)
    machine.run("update-ca-certificates")
    key = (machine.root / "root/key.pub").read_text().strip()
    given = {
        "users_admin_keys": [key],
        "ai_domain": PORTAL,
        "tls_acme_url": world.url,
        "tls_acme_ca": "/root/roots.pem",
    }
    (machine.root / "root/vars.yml").write_text(json.dumps(given))
    box = f'acme_url = "{world.url}"\nacme_ca = "/root/roots.pem"\n'
    box += f'nameserver = "{world.nameserver}"\naddresses = ["127.0.0.1"]\n'
    (machine.root / "root/broker.toml").write_text(f"[box]\n{box}")


@pytest.fixture(scope="module")
def before(server: Machine) -> set[str]:
    return server.files()


def test_killed_at_any_moment_it_goes_on_where_it_was(server: Machine, before: set[str]) -> None:
    dice = random.Random(time.time_ns())
    log = server.root / "var/log/ai-infra/install.log"
    server.run("install -D -m 0644 /root/broker.toml /etc/ai-infra/broker.toml")
    for moment in MOMENTS:
        run = server.start(INSTALL)
        _reached(log, log.stat().st_size if log.exists() else 0, moment, run)
        time.sleep(dice.uniform(0.0, 4.0))
        # All of it at once, as a power cut would; apt and dpkg as well.
        for process in psutil.Process(run.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert run.wait(30) != 0
        if moment == MOMENTS[0]:
            server.run(COMPILE, limit_s=LIMIT_S)
    done = server.run(INSTALL, limit_s=LIMIT_S, check=False)
    kept = Path(__file__).parents[1] / "artifacts" / "install.log"
    kept.parent.mkdir(exist_ok=True)
    shutil.copyfile(log, kept)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    report = json.loads((server.root / "var/log/ai-infra/attestation.json").read_text())
    assert report["ok"]
    assert [proof["name"] for proof in report["proofs"]][:6] == [
        "versions", "units", "ports", "tls", "agent", "memory",
    ]  # fmt: skip
    assert not (server.root / "etc/ai-infra/.unfinished").exists()


def test_again_changes_nothing(server: Machine) -> None:
    line = "cd /opt/ai-infra/current && .venv/bin/python -m provision.runner --json"
    said = server.run(
        f"{line} --vars /etc/ai-infra/vars.yml --set ai_release=/opt/ai-infra/releases/0.1.0",
        limit_s=LIMIT_S,
    )
    summary = json.loads(said.stdout)
    assert summary["changed"] == 0, summary["changes"]
    assert len(summary["roles"]) >= 15


def test_no_unit_takes_the_machine(server: Machine) -> None:
    """Each runs under the limits that its drop-in says, scaled to this machine."""
    names = server.run("systemctl list-units --plain --no-legend --state=running '*.service'")
    running = [line.split()[0].removesuffix(".service") for line in names.stdout.splitlines()]
    for known, file in LIMITED.items():
        (unit,) = [
            one for one in running if one == known or ("@" in known and one.startswith(known))
        ]
        folder = unit if known == "postgresql@" else known
        drop = server.root / f"etc/systemd/system/{folder}.service.d/{file}.conf"
        said = dict(re.findall(r"^(\w+)=(.*)$", drop.read_text(), re.MULTILINE))
        wanted = ["MemoryMax", "MemoryHigh", "CPUQuotaPerSecUSec", "TasksMax", "ControlGroup"]
        shown = server.run(f"systemctl show {unit} -p {','.join(wanted)}").stdout
        found = dict(line.split("=", 1) for line in shown.splitlines())
        for name in ("MemoryMax", "MemoryHigh"):
            assert int(found[name]) == int(said[name].removesuffix("M")) * 2**20, (unit, name)
        cores = int(said["CPUQuota"].removesuffix("%")) / 100
        assert _seconds(found["CPUQuotaPerSecUSec"]) == pytest.approx(cores), unit
        assert found["TasksMax"] == said["TasksMax"], unit
        # Where the container may set limits, the kernel has them, too.
        kernel = server.run(f"cat /sys/fs/cgroup{found['ControlGroup']}/memory.max", check=False)
        assert kernel.returncode or int(kernel.stdout) == int(found["MemoryMax"]), unit


def test_the_portal_is_reached_through_nginx(server: Machine) -> None:
    """By a certificate that the machine's own list of roots accepts."""
    for path, said in (("/api/health/ready", "200"), ("/api/tasks", "401")):
        assert get(server, PORTAL, path)[0] == said
    http = f"curl -sS --resolve {PORTAL}:80:127.0.0.1 -o /dev/null -w '%{{redirect_url}}'"
    assert server.run(f"{http} http://{PORTAL}/").stdout == f"https://{PORTAL}/"
    link = server.run("ai-infra login-link").stdout.strip()
    assert get(server, PORTAL, "/" + link.split("/", 3)[3])[0] in {"200", "302", "303", "307"}


def test_who_logs_in_sees_the_agents(server: Machine) -> None:
    ssh = (
        "ssh -i /root/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null ai@127.0.0.1"
    )
    windows = server.run(f"{ssh} tmux list-windows -t ai-infrastructure -F '\\#W'").stdout.split()
    assert windows[0] == "supervisor"
    assert {"code", "infra", "monitor", "logs"} <= set(windows)
    assert "agents" in server.run(f"{ssh} ai-infra status --json").stdout
    # The tmux server is the unit's, not that of whoever asked for it.
    pid = server.run("systemctl show -P MainPID ai-agents").stdout.strip()
    inside = server.run("pgrep -u ai -x -f '.*tmux -D.*|tmux: server.*' | head -n 1").stdout.strip()
    assert "ai-agents.service" in server.run(f"cat /proc/{inside}/cgroup").stdout, pid


def test_nobody_is_locked_out(server: Machine) -> None:
    line = "cd /opt/ai-infra/current && .venv/bin/python -m provision.runner --tags ssh"
    refused = server.run(
        f"{line} --set ssh_passwords=off --set ai_release=/opt/ai-infra/current",
        check=False,
        limit_s=120,
    )
    assert refused.returncode != 0
    assert "lock you out" in refused.stdout + refused.stderr
    assert "passwordauthentication yes" in server.run("sshd -T").stdout
    assert "clientaliveinterval 77" in server.run("sshd -T").stdout
    server.run("rm -f /etc/ai-infra/.unfinished")


def test_the_infra_agent_looks_after_a_domain(server: Machine) -> None:
    """Each step waits for a person's yes, and meanwhile the one before is looked at by HTTPS."""
    verbs: list[tuple[str, dict[str, object]]] = [
        ("domain.add", {"domain": SITE}),
        ("site.deploy", {"domain": SITE, "source": {"kind": "folder", "path": f"{WORKSPACE}/s"}}),
        ("cert.renew", {"domain": SITE, "force": True}),
        ("domain.remove", {"domain": SITE, "revoke": True}),
    ]
    page = {"path": "s/index.html", "content": PAGE}
    lines: list[dict[str, object]] = [{"for": "infra", "tool": "write", "input": page}]
    lines += [
        {"for": "infra", "tool": "broker", "input": {"verb": verb, "request": request}}
        for verb, request in verbs
    ]
    script = "\n".join(map(json.dumps, [*lines, {"for": "infra", "say": "It is gone again."}]))
    (server.root / "var/tmp/ask.md").write_text(f"Try a site.\n\n```rehearsal\n{script}\n```\n")
    ask = server.talk("ai-infra ask --agent infra --effort standard --json - < /var/tmp/ask.md")
    seen = []
    for verb, _ in verbs:
        approval = _waits(ask)
        assert verb in server.run(f"ai-infra approvals show {approval}").stdout
        seen.append(get(server, SITE, "/"))
        server.run(f"ai-infra approvals approve {approval}")
    said, _ = ask.communicate(timeout=120)
    assert ask.returncode == 0, said[-3000:]
    nothing, added, deployed, renewed = seen
    assert nothing[0] == "000"
    assert added[0] == "200"
    assert PAGE not in added[1]
    assert (deployed[0], deployed[1]) == ("200", PAGE)
    assert (renewed[0], renewed[1]) == ("200", PAGE)
    assert added[2] == deployed[2] != renewed[2]
    assert get(server, SITE, "/")[0] == "000"
    assert SITE not in server.run("ai-infra domains list --json").stdout


def test_lost_it_comes_back_from_its_backup(server: Machine) -> None:
    task = json.loads(server.run("ai-infra tasks list --json").stdout)["tasks"][0]["id"]
    server.run(f"ai-infra memory remember 'The word of the cellar door is {WORD}.'")
    _until(lambda: _recalled(server))
    shown = server.run(f"ai-infra tasks show {task}").stdout
    server.run(f"ai-infra domains add {KEPT}", limit_s=120)
    server.run(f"install -D -m 0644 /root/owner.txt /var/tmp/kept/index.html && cd /var/tmp &&"
               f" ai-infra domains deploy {KEPT} /var/tmp/kept", limit_s=120)  # fmt: skip
    site, history = get(server, KEPT, "/"), _history(server)
    assert site[:2] == ("200", OWNER["/root/owner.txt"])
    made = json.loads(server.run("ai-infra backup create --json", limit_s=120).stdout)
    assert made["snapshot"] in server.run("ai-infra backup verify", limit_s=120).stdout
    before = server.run(KEPT_ROWS).stdout
    server.run(LOSE)
    assert WORD not in server.run(SEARCH, check=False).stdout
    assert get(server, KEPT, "/")[0] == "000"

    began_s = time.monotonic()
    done = json.loads(server.run("ai-infra backup restore --yes --json", limit_s=RTO_S).stdout)
    assert (done["notes"], done["database_aside"]) == ([], None)
    _until(lambda: _recalled(server), limit_s=RTO_S)
    assert server.run(f"ai-infra tasks show {task}").stdout == shown
    assert (server.root / WORKSPACE[1:] / "s/index.html").read_text() == PAGE
    assert server.run(KEPT_ROWS).stdout == before
    assert get(server, KEPT, "/") == site
    assert _history(server)[-len(history) :] == history
    took_s = time.monotonic() - began_s
    print(f"figure restored {took_s:.1f} s")
    assert took_s <= RTO_S


def test_the_portal_restores_a_backup_and_comes_back(server: Machine) -> None:
    """As its page has it done, through nginx, while all of it runs."""
    server.run(f"printf '{PASSWORD}\\n{PASSWORD}\\n' | ai-infra passwd")
    early = Person.log_in(server, PORTAL, OWNER_EMAIL, PASSWORD)
    assert early.post("/api/conversations", {"title": "of before"}).status == 201
    before, site = server.run(KEPT_ROWS).stdout, get(server, KEPT, "/")
    known = _snapshots(early)
    begun = early.post("/api/backups", {})
    assert (begun.status, begun.json["kind"]) == (202, "backup"), begun
    _until(lambda: _progress(early)["work"]["state"] != "running")
    assert _progress(early)["work"]["state"] == "done", _progress(early)
    (made,) = _snapshots(early) - known
    late = Person.log_in(server, PORTAL, OWNER_EMAIL, PASSWORD)
    assert late.post("/api/conversations", {"title": "of after"}).status == 201
    server.run(f"ai-infra memory remember 'The lamp of the boathouse is lit by {LATER}.'")
    _until(lambda: LATER in server.run(LAMP, check=False).stdout)
    server.run(f"ai-infra domains disable {KEPT}")
    path = f"/api/backups/{made}"
    assert early.post(f"{path}/restore", {"confirm": "yes"}).status == 422
    assert early.post(f"{path}/plan", {}).json["plan"][0].startswith(f"fetch {made}")

    began_s = time.monotonic()
    begun = early.post(f"{path}/restore", {"confirm": made})
    assert (begun.status, begun.json["kind"], begun.json["snapshot"]) == (202, "restore", made)
    page = ("/backups", "-H", "Accept: text/html")
    _until(lambda: ask(server, PORTAL, *page).status == 503)
    away_s = time.monotonic()
    away = ask(server, PORTAL, *page)
    assert "<h1>The portal does not answer</h1>" in away.body, away
    assert "\nretry-after: 5\n" in away.head
    assert ask(server, PORTAL, "/api/backups").json["status"] == 503
    _until(lambda: ask(server, PORTAL, *page).status == 303, limit_s=RTO_S)
    print(f"figure portal_away_for_a_restore {time.monotonic() - away_s:.1f} s")
    _until(lambda: _progress(early)["restored"]["ended_at"])
    print(f"figure restored_by_the_portal {time.monotonic() - began_s:.1f} s")
    end = _progress(early)["restored"]
    assert (end["snapshot"], end["problem"], end["notes"]) == (made, None, [])
    assert (server.root / end["aside"][1:]).is_dir()
    assert end["database_aside"].startswith("ai_infra_before_")
    assert server.run(KEPT_ROWS).stdout == before
    titles = [one["title"] for one in early.get("/api/conversations").json["conversations"]]
    assert "of before" in titles
    assert "of after" not in titles
    _until(lambda: _recalled(server))
    assert LATER not in server.run(LAMP).stdout
    assert get(server, KEPT, "/") == site
    # Who logged in after the backup was made is told what to do.
    refused = late.get("/api/auth/me")
    assert (refused.status, refused.json["detail"]) == (401, ENDED)
    assert json.loads(server.run("ai-infra broker verbs --json").stdout)["interrupted"] == []


def test_another_version_comes_and_one_that_fails_goes(server: Machine) -> None:
    for version in ("0.1.1", "0.1.2", "0.1.3"):
        _offer(server, version)
    for version, program in (("0.1.2", "portal"), ("0.1.3", "provision")):
        broken = f"/srv/releases/{version}/{program}/__main__.py"
        server.run(f"echo 'raise SystemExit(7)' > {broken}")
    toml = server.root / "etc/ai-infra/update.toml"
    toml.write_text('source = "/srv/releases"\n')
    toml.chmod(0o600)
    broker = server.run(BROKER).stdout
    done = json.loads(server.run("ai-infra update 0.1.1 --json", limit_s=LIMIT_S).stdout)["result"]
    print(f"figure update_down {done['switched_s']:.1f} s")
    assert (done["before"], _version(server)) == ("0.1.0", "0.1.1")
    _until(lambda: server.run(BROKER).stdout not in {broker, "0\n"})
    _until(lambda: "already" in server.run("ai-infra update 0.1.1 --check", check=False).stderr)
    broker = server.run(BROKER).stdout
    began_s = time.monotonic()
    failed = server.run("ai-infra update 0.1.2 --json", check=False, limit_s=LIMIT_S)
    took_s = time.monotonic() - began_s
    print(f"figure update_tried_and_rolled_back {took_s:.1f} s")
    assert failed.returncode == 1
    found = re.search(r"rolled back to 0\.1\.1 in (\S+) s, (\S+) s after", failed.stderr)
    assert found, failed.stderr
    print(f"figure rolled_back {found[1]} s, away {found[2]} s")
    assert _version(server) == "0.1.1"
    assert float(found[1]) <= 60
    # The broker itself starts last, when all else works; its unit sees that it does not.
    _until(lambda: server.run(BROKER).stdout not in {broker, "0\n"})
    _until(lambda: "already" in server.run("ai-infra update 0.1.1 --check", check=False).stderr)
    server.run("ai-infra update 0.1.3 --json", limit_s=LIMIT_S)
    _until(lambda: _version(server) == "0.1.1" and server.run(BROKER).stdout != "0\n")
    _until(lambda: not (server.root / "opt/ai-infra/before").is_symlink())
    _until(lambda: "already" in server.run("ai-infra update 0.1.1 --check", check=False).stderr)


@pytest.mark.timeout(2 * SLOWLY_S)
def test_one_that_wants_other_packages_brings_them(server: Machine) -> None:
    """Through the root broker, which may not write where root's npm keeps what it fetches."""
    for version, wanted in (("0.1.4", "no-such-package==1.0"), ("0.1.5", "wheel")):
        folder = _offer(server, version)
        server.run(f"""sed -i 's/^dependencies = \\[/&"{wanted}",/' {folder}/pyproject.toml""")
        server.run(f"echo >> {folder}/agents/runtime/package-lock.json")
    broker = server.run(BROKER).stdout
    failed = server.run("ai-infra update 0.1.4 --json", check=False, limit_s=LIMIT_S)
    assert failed.returncode == 1
    why = "0.1.4 cannot be made: pip install: Could not find a version that satisfies"
    assert f"{why} the requirement no-such-package==1.0" in failed.stderr, failed.stderr
    assert "0.1.1 runs on as it did" in failed.stderr
    assert (_version(server), server.run(BROKER).stdout) == ("0.1.1", broker)
    assert "0.1.4" not in server.run("ls /opt/ai-infra/releases; ls -a /var/lib/ai-broker").stdout
    # As it is on a server of somebody's: what is not compiled is so at each start.
    (server.root / "etc/pip.conf").write_text(PIP.partition("[install]")[0])
    began_s = time.monotonic()
    with registry(server):
        server.run("ai-infra update 0.1.5 --json", limit_s=SLOWLY_S)
    print(f"figure update_with_packages {time.monotonic() - began_s:.1f} s")
    (server.root / "etc/pip.conf").write_text(PIP)
    assert _version(server) == "0.1.5"
    server.run("/opt/ai-infra/current/.venv/bin/python -c 'import wheel'")
    torch = ".venv/lib/python3*/site-packages/torch/version.py"  # it was not fetched again
    server.run(f"cd /opt/ai-infra/releases && test 0.1.1/{torch} -ef 0.1.5/{torch}")
    assert ".work" not in server.run("ls -a /opt/ai-infra/current/").stdout
    _until(lambda: "already" in server.run("ai-infra update 0.1.5 --check", check=False).stderr)
    server.run("rm -rf /srv/releases")


def test_a_service_that_dies_comes_back(server: Machine) -> None:
    server.run("systemctl kill -s KILL ai-memory ai-supervisor")
    _until(
        lambda: (
            server.run("systemctl is-active ai-memory ai-supervisor", check=False).stdout
            == "active\nactive\n"
        )
    )


def test_the_sandbox_holds_for_the_agents_account(server: Machine) -> None:
    holds = server.run(
        "set -a; . /etc/ai-infra/settings.env; set +a; cd /;"
        " setpriv --reuid ai --regid ai --init-groups env HOME=/home/ai"
        " /opt/ai-infra/current/.venv/bin/python -m agents --canary",
        limit_s=120,
    )
    # Before it there may be a warning: no package index can be reached from in here.
    assert holds.stdout.splitlines()[-1].startswith("holds: ")


def test_the_agents_account_cannot_give_itself_leave(server: Machine) -> None:
    ai = "cd / && runuser -u ai --"
    count = f"{ai} psql -XAtqc 'SELECT count(*) FROM tasks' ai_infra"
    assert int(server.run(count).stdout) >= 0
    for line in (
        "psql -XAtqc 'SELECT * FROM consents' ai_infra",
        "psql -XAtqc 'SET ROLE ai_infra' ai_infra",
        """psql -XAtqc "UPDATE users SET role = 'admin'" ai_infra""",
        "cat /var/lib/ai-infra/secrets/jwt-secret",
        "touch /etc/ai-infra/config/settings.toml",
        "ai-infra login-link",
        "ai-infra broker call unit.restart unit=nginx.service",
    ):
        refused = server.run(f"{ai} {line}", check=False)
        said = refused.stdout + refused.stderr
        assert refused.returncode != 0, line
        assert "denied" in said or "may not do this" in said, (line, said)
    assert "agents" in server.run(f"{ai} ai-infra status --json").stdout


def test_a_reboot_and_it_works(server: Machine) -> None:
    server.halt()
    began_s = time.monotonic()
    server.boot()
    ask = "ai-infra ask --effort minimal --json 'Are you there?'"
    _until(lambda: server.run(ask, check=False, limit_s=120).returncode == 0, limit_s=240)
    took_s = time.monotonic() - began_s
    print(f"figure reboot_to_answer {took_s:.1f} s")
    assert took_s <= 90 or _busy()


def test_uninstalled_it_is_as_it_was(server: Machine, before: set[str]) -> None:
    server.run("/src/install.sh --appliance --uninstall --purge --yes", limit_s=LIMIT_S)
    after = server.files()
    assert sorted(after - before) == []
    assert sorted(before - after) == []
    for path, text in OWNER.items():
        assert (server.root / path[1:]).read_text() == text
    assert "ai-" not in server.run("getent passwd; getent group").stdout


def _offer(server: Machine, version: str) -> str:
    """What runs, as that version, where updates come from; the folder."""
    folder = f"/srv/releases/{version}"
    server.run(
        f"mkdir -p {folder} && cd /opt/ai-infra/current/ && tar -c --exclude=./.venv . |"
        f" tar -x -C {folder} &&"
        f""" sed -i 's/^version = .*/version = "{version}"/' {folder}/pyproject.toml"""
    )
    return folder


def _waits(ask: subprocess.Popen[str]) -> str:
    """The approval that the task waits for now."""
    assert ask.stderr is not None
    heard = []
    for line in ask.stderr:
        heard.append(line)
        if found := re.search(r"waits for approval ([0-9a-f]{8})", line):
            return found[1]
    raise AssertionError("".join(heard)[-3000:] + (ask.stdout.read() if ask.stdout else "")[-3000:])


def _busy() -> bool:
    """Others are at work here, too, so that times mean little."""
    return os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1)


def _recalled(server: Machine) -> bool:
    return WORD in server.run(SEARCH, check=False).stdout


def _progress(person: Person) -> dict[str, Any]:
    """What the portal says of backups under way, and how the last ones went."""
    said = person.get("/api/backups/progress")
    assert said.status == 200, said
    found: dict[str, Any] = said.json
    return found


def _snapshots(person: Person) -> set[str]:
    return {one["id"] for one in person.get("/api/backups").json["snapshots"]}


def _seconds(said: str) -> float:
    """What systemd writes as 500ms or 1.5s."""
    return float(said[:-2]) / 1000 if said.endswith("ms") else float(said.removesuffix("s"))


def _history(server: Machine) -> list[str]:
    """The changes of the sites, by their ids, newest first."""
    said = json.loads(server.run("ai-infra domains history --limit 1000 --json").stdout)
    return [one["id"] for one in said["changes"]]


def _version(server: Machine) -> str:
    said = server.run("curl -s http://127.0.0.1:8000/openapi.json", check=False).stdout
    return str(json.loads(said)["info"]["version"]) if said else ""


def _until(
    true: object, run: subprocess.Popen[bytes] | None = None, limit_s: float = 600.0
) -> None:
    end_s = time.monotonic() + limit_s
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end_s, "it did not happen in time"
        assert run is None or run.poll() is None, "it ended before"
        time.sleep(0.2)


def _reached(log: Path, start: int, moment: str, run: subprocess.Popen[bytes]) -> None:
    """Wait until the log, read on from `start`, tells of that moment."""

    def told() -> bool:
        if not log.exists():
            return False
        with log.open(errors="replace") as file:
            file.seek(start)
            return moment in file.read()

    _until(told, run)
