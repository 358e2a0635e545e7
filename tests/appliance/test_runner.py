"""ansible-runner behind its one door: variables, events, and a real run on this machine."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import yaml
from jinja2 import Environment, FileSystemLoader

from base.errors import SettingsError
from provision import rules, runner

ROLES = [
    "base", "users", "ssh", "firewall", "redis", "postgres", "qdrant", "tmux", "app", "workers",
    "nginx", "tls", "fail2ban", "monitoring", "backup",
]  # fmt: skip


def test_the_project_has_every_role_with_a_tag_and_its_variables() -> None:
    play = yaml.safe_load((runner.PROJECT / "site.yml").read_text())[0]
    assert [role["role"] for role in play["roles"]] == ROLES
    assert [role["tags"] for role in play["roles"]] == ROLES
    for role in ROLES:
        defaults = runner.PROJECT / "roles" / role / "defaults" / "main.yml"
        assert defaults.read_text().startswith("#"), f"{role} explains no variable"
        for name in yaml.safe_load(defaults.read_text()) or {}:
            assert name.startswith(f"{role}_"), name


def test_only_modules_that_come_with_ansible_core() -> None:
    for path in runner.PROJECT.glob("roles/*/tasks/*.yml"):
        for task in yaml.safe_load(path.read_text()) or ():
            for step in (task, *task.get("block", ()), *task.get("rescue", ())):
                modules = [key for key in step if "." in key]
                assert all(key.startswith("ansible.builtin.") for key in modules), (path, modules)


def drawn(role: str, name: str, **values: object) -> str:
    """A template of a role, as ansible draws it."""
    folder = runner.PROJECT / "roles" / role / "templates"
    jinja = Environment(loader=FileSystemLoader(folder), trim_blocks=True, autoescape=False)
    jinja.filters["to_json"] = json.dumps
    return jinja.get_template(name).render(values)


@pytest.mark.parametrize(
    ("role", "mb", "cores", "memory", "cpu"),
    [
        ("nginx", 65_536, 8, "512M", "50%"),
        ("nginx", 4_096, 2, "128M", "50%"),
        ("postgres", 65_536, 8, "8192M", "200%"),
        ("postgres", 16_384, 4, "2048M", "100%"),
        ("postgres", 2_048, 1, "512M", "100%"),
        ("postgres", 262_144, 64, "8192M", "200%"),
    ],
)
def test_limits_are_the_seed_plans_scaled_to_the_box(
    role: str, mb: int, cores: int, memory: str, cpu: str
) -> None:
    defaults = yaml.safe_load((runner.PROJECT / f"roles/{role}/defaults/main.yml").read_text())
    limit = {"nginx": defaults.get("nginx_limits", {}).get("nginx")}.get(role)
    item = {"key": role, "value": limit or defaults["postgres_limits"]}
    text = drawn("base", "limits.conf.j2", item=item, base_memory_mb=str(mb), base_cores=cores)
    said = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    assert (said["MemoryMax"], said["CPUQuota"]) == (memory, cpu)


def test_the_broker_is_told_of_the_variables(tmp_path: Path) -> None:
    given: dict[str, object] = {
        "ai_http_port": 8080, "ai_https_port": 8443, "ai_email": "me@example.org",
        "tls_acme_url": "", "tls_acme_ca": "", "tls_addresses": ["203.0.113.5"],
        "tls_nameserver": "",
    }  # fmt: skip
    told = tmp_path / rules.INSTALLED
    told.write_text(drawn("nginx", "broker.installed.toml.j2", **given))
    own = tmp_path / "broker.toml"
    own.write_text("[box]\nhttps_port = 9443\n")
    box = rules.load(own).box
    assert (box.http_port, box.https_port) == (8080, 9443)
    assert (box.acme_email, box.acme_url) == ("me@example.org", None)
    assert box.addresses == ("203.0.113.5",)
    told.chmod(0o666)
    with pytest.raises(SettingsError, match="can be written by others"):
        rules.load(own)


def test_a_slip_of_the_pen_is_told() -> None:
    assert runner.unknown({"ai_domain": "a.example", "ssh_password": "off"}) == ["ssh_password"]
    assert runner.unknown({"ssh_passwords": "off", "anthropic_api_key": "x"}) == []


def test_variables_are_a_mapping_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "vars.yml"
    path.write_text("- a\n- b\n")
    with pytest.raises(ValueError, match="no list of"):
        runner.read(path)
    path.write_text('{"ai_http_port": 8080}')
    assert runner.read(path) == {"ai_http_port": 8080}


def test_the_key_never_reaches_ansible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "KEY", tmp_path / "etc" / "key")
    variables = {"anthropic_api_key": "sk-word", "ai_domain": "a.example"}
    runner.keep_key(variables)
    assert variables == {"ai_domain": "a.example"}
    assert (tmp_path / "etc" / "key").read_text() == "sk-word\n"
    assert (tmp_path / "etc" / "key").stat().st_mode & 0o777 == 0o600


def test_what_changed_and_what_failed_is_counted_by_role() -> None:
    said: list[str] = []
    listener = runner.Listener(io.StringIO(), said.append, check=False)
    for role, task, changed in (("base", "one", True), ("base", "two", False), ("tls", "x", True)):
        data = {"role": role, "task": task, "res": {"changed": changed}}
        listener({"event": "playbook_on_task_start", "event_data": data, "stdout": ""})
        listener({"event": "runner_on_ok", "event_data": data, "stdout": f"ok {task}"})
    listener.end_role()
    assert listener.run.changed == ["base: one", "tls: x"]
    assert said == ["base        1 changed", "tls         1 changed"]


def test_a_real_run_changes_once_and_fails_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    python = f"ansible_python_interpreter={sys.executable}"
    (project / "inventory").write_text(f"box ansible_connection=local {python}\n")
    (project / "ansible.cfg").write_text("[defaults]\n")
    (project / "site.yml").write_text(
        "- hosts: box\n  gather_facts: false\n"
        "  ignore_errors: '{{ ansible_check_mode }}'\n  tasks:\n"
        "    - ansible.builtin.copy: {dest: '{{ where }}/made', content: word, mode: '0644'}\n"
        "    - ansible.builtin.assert: {that: not broken, fail_msg: it is broken}\n"
        # Ansible 2.19 ignores what fails before it has read `ignore_errors`.
        "    - ansible.builtin.command: 'true'\n      when: condition\n      changed_when: false\n"
    )
    monkeypatch.setattr(runner, "PROJECT", project)
    log = tmp_path / "log"

    def run(*, check: bool = False, broken: bool = False, condition: object = True) -> runner.Run:
        variables = {"where": str(tmp_path), "broken": broken, "condition": condition}
        return runner.play("site.yml", variables, check=check, tags="", log=log, say=print)

    ahead = run(check=True)
    assert ahead.ok
    assert len(ahead.changed) == 1
    assert not (tmp_path / "made").exists()
    assert len(run().changed) == 1
    assert (tmp_path / "made").read_text() == "word"
    assert run().changed == []
    failed = run(broken=True)
    assert not failed.ok
    assert "it is broken" in failed.failed[0]
    assert "PLAY RECAP" in log.read_text()
    ignored = run(condition="a word")
    assert not ignored.ok
    assert "must have a boolean" in ignored.failed[0]
    assert run(condition="a word", check=True).ok
