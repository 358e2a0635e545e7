"""What the attestation says of the backup, by a command that plays `ai-infra`."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision import attest

CREATE = '{"snapshot": "1a2b3c4d", "repository": "/var/backups/ai-infra"}'
WELL = '{"ok": true, "ready_s": 41.5, "problem": null}'
ILL = '{"ok": false, "ready_s": 41.5, "problem": "memory did not keep something new"}'


@pytest.mark.parametrize(
    ("create", "drill", "ok", "told"),
    [
        (f"echo '{CREATE}'", f"echo '{WELL}'", True,
         "1a2b3c4d in /var/backups/ai-infra, restored and at work after 41.5 s"),
        ("echo 'no space is left' >&2; exit 1", "true", False,
         "no backup could be made: /bin/ai-infra backup create: no space is left"),
        (f"echo '{CREATE}'", "echo 'restic: the key does not fit' >&2; exit 1", False,
         "1a2b3c4d could not be restored: restic: the key does not fit"),
        (f"echo '{CREATE}'", f"echo '{ILL}'; exit 1", False,
         "1a2b3c4d was restored and fails: memory did not keep something new"),
    ],
)  # fmt: skip
def test_a_backup_is_made_and_restored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, create: str, drill: str, ok: bool, told: str
) -> None:
    command = tmp_path / "bin" / "ai-infra"
    command.parent.mkdir()
    cases = f'"create --json") {create} ;; "drill 1a2b3c4d") {drill} ;;'
    command.write_text(f'#!/bin/sh\ncase "$2 $3" in {cases} esac\n')
    command.chmod(0o755)
    monkeypatch.setattr(attest, "COMMAND", str(command))
    said: list[attest.Proof] = []
    [proof] = attest.prove(["backup"], said.append)
    assert (proof.ok, proof.found.replace(str(tmp_path), "")) == (ok, told)
    assert said == [proof]
    assert list(attest.CHECKS)[-1] == "backup"
