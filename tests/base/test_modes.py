"""Who may read what is written: decided when a program starts, so each case is a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, stat, sys
from pathlib import Path
from base import secrets_files
from base.settings import load
home = Path(sys.argv[1])
os.umask(0o007)
path = secrets_files.put(home / "secrets", "github-pat", "word")
print(oct(stat.S_IMODE(path.stat().st_mode)))
path.chmod(0o640)
try:
    print(secrets_files.from_file(home / "secrets", "github-pat").value.get_secret_value())
except Exception as error:
    print(type(error).__name__)
load(home=home).prepare()
print(sorted(one.name for one in home.iterdir()))
"""


@pytest.mark.parametrize(
    ("appliance", "said"),
    [
        ("true", ["0o640", "word", "['secrets']"]),
        ("false", ["0o600", "SettingsError"]),
    ],
)
def test_secrets_are_shared_with_their_group_on_the_appliance_alone(
    tmp_path: Path, appliance: str, said: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env={**os.environ, "AI_INFRA_APPLIANCE": appliance},
        check=True,
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert lines[: len(said)] == said
    if appliance == "false":  # there everything is made, and nothing for others
        assert "attachments" in lines[-1]
