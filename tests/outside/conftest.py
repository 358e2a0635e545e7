"""A box with tokens, and the two servers that play the other side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_github import FakeGithub
from present import need

from provision.box import Box

PAT = "github_pat_11TESTTESTTEST0aQ9xZ_7yWmNbVcXz"
Configure = Callable[[str], None]


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    home = tmp_path / "home"
    (home / "secrets").mkdir(mode=0o700, parents=True)
    monkeypatch.setenv("AI_INFRA_HOME", str(home))
    made = Box(
        root=tmp_path,
        state=tmp_path / "state",
        letsencrypt=tmp_path / "letsencrypt",
        config=tmp_path / "etc",
    )
    (made.config / "secrets").mkdir(mode=0o700, parents=True)
    return made


@pytest.fixture
def give(box: Box) -> Callable[[str, str], Path]:
    """Put a token into the box's own folder of secrets."""

    def give(name: str, value: str) -> Path:
        path = box.config / "secrets" / name
        path.write_text(value)
        path.chmod(0o600)
        return path

    return give


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def github(tmp_path: Path, give: Callable[[str, str], Path]) -> Iterator[FakeGithub]:
    need("git")
    give("github-pat", PAT)
    (tmp_path / "github").mkdir()
    fake = FakeGithub(tmp_path / "github", PAT)
    yield fake
    fake.close()
