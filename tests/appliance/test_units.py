"""The units as they are shipped: how exposed they are, and what every one of them must say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from present import need

from provision import rules, runner
from supervisor import units

UNITS = Path(__file__).resolve().parents[2] / "systemd"
#: The most that `systemd-analyze security` may say of a unit.
EXPOSURE = {
    "ai-redis.service": 1.0,
    "ai-memory.service": 2.0,
    "ai-api.service": 2.0,
    "ai-workers@.service": 2.0,
    "ai-rehearsal.service": 2.0,
    "ai-supervisor.service": 2.0,
    "ai-agents.service": 4.5,
    "ai-provision.service": 5.5,
}
USERS = {
    "ai-redis.service": "ai-redis",
    "ai-memory.service": "ai-memory",
    "ai-api.service": "ai-api",
    "ai-workers@.service": "ai-worker",
    "ai-rehearsal.service": "ai-worker",
    "ai-supervisor.service": "ai",
    "ai-agents.service": "ai",
    "ai-provision.service": "root",
}


@pytest.mark.parametrize("name", EXPOSURE)
def test_a_unit_is_no_more_exposed_than_it_must_be(name: str) -> None:
    analyze = need("systemd-analyze")
    line = [analyze, "security", "--offline=yes", "--no-pager", str(UNITS / name)]
    said = subprocess.run(line, check=False, capture_output=True, text=True).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found, said[-500:]
    worst = [row for row in said.splitlines() if row.startswith("✗")]
    assert float(found[1]) <= EXPOSURE[name], "\n".join(worst)


def test_none_names_root() -> None:
    """On Debian 13 one that does may not become somebody else: uploads and backups need to."""
    assert not [path.name for path in UNITS.iterdir() if "\nUser=root\n" in path.read_text()]


@pytest.mark.parametrize("name", EXPOSURE)
def test_a_unit_says_who_how_long_and_how_often(name: str) -> None:
    text = (UNITS / name).read_text()
    said = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    assert said.get("User", "root") == USERS[name]
    for key in ("TimeoutStopSec", "Restart", "RestartSec", "StartLimitBurst", "NoNewPrivileges"):
        assert said.get(key), f"{name} says no {key}"
    if name != "ai-rehearsal.service":
        assert said["Type"] == "notify"
    if name not in {"ai-rehearsal.service", "ai-redis.service"}:
        assert int(said["WatchdogSec"]) <= 120


def test_the_target_wants_every_unit() -> None:
    target = (UNITS / "ai-infrastructure.target").read_text()
    for name in EXPOSURE:
        assert name.replace("@.", "@embed.") in target
        assert "PartOf=ai-infrastructure.target" in (UNITS / name).read_text()


def test_what_may_be_restarted_is_what_is_installed() -> None:
    target = (UNITS / "ai-infrastructure.target").read_text()
    wanted = set(" ".join(re.findall(r"^Wants=(.*)$", target, re.MULTILINE)).split())
    listed = set(rules.load(Path("/nonexistent/broker.toml")).box.units)
    assert listed == wanted - {rules.OWN_UNIT} | {"nginx.service", "postgresql.service"}
    started = (runner.PROJECT / "roles/app/tasks/start.yml").read_text()
    for unit in wanted - {"ai-rehearsal.service"}:  # which runs without a key alone
        assert unit.removesuffix(".service") in started
    assert set(units.UNITS.values()) == wanted


def test_what_hosts_sandboxes_hides_nothing_of_proc_and_sys() -> None:
    text = (UNITS / "ai-agents.service").read_text()
    words = ["ProtectKernelTunables", "ProtectProc", "ProcSubset", "RestrictNamespaces"]
    # Debian 13's bubblewrap opens by openat2, which that one answers with "not implemented".
    for word in [*words, "RestrictSUIDSGID"]:
        assert f"{word}=" not in text, f"{word} would refuse every sandbox"


def test_the_broker_may_do_what_its_verbs_need() -> None:
    """Each was found on a server, where the verb failed without it."""
    text = (UNITS / "ai-provision.service").read_text()
    assert "CAP_SETFCAP" in text, "bwrap cannot map root: no site is ever tried"
    assert "RestrictSUIDSGID=yes" not in text, "restored folders would lose their group"
    assert "/etc/systemd/system" in text, "an update cannot lay its units out"
