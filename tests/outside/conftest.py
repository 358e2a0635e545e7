"""A box with tokens, and the two servers that play the other side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_cloudflare import FakeCloudflare
from fake_github import FakeGithub
from present import need

from provision.box import Box
from provision.github_jobs import Jobs

PAT = "github_pat_11TESTTESTTEST0aQ9xZ_7yWmNbVcXz"
CFUT = "cfut_TESTtest0123456789abcdefghijklmnopqrstuv"


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
def github(tmp_path: Path, give: Callable[[str, str], Path]) -> Iterator[FakeGithub]:
    need("git")
    give("github-pat", PAT)
    (tmp_path / "github").mkdir()
    fake = FakeGithub(tmp_path / "github", PAT)
    yield fake
    print(*fake.asked, *fake.answers, sep="\n")
    fake.close()


@pytest.fixture
def cloudflare(box: Box, give: Callable[[str, str], Path]) -> Iterator[FakeCloudflare]:
    """One managed zone, example.org, and one that is not, other.org."""
    give("cloudflare-token", CFUT)
    fake = FakeCloudflare(CFUT)
    (box.config / "outside.toml").write_text(
        f'[cloudflare]\nurl = "{fake.url}"\nzones = ["example.org", "new.org"]\n'
        f'account = "{"a" * 32}"\n'
    )
    yield fake
    fake.close()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    path = tmp_path / "files"
    path.mkdir()
    return path


@pytest.fixture
def jobs(box: Box, github: FakeGithub, files: Path) -> Jobs:
    github.add("me/store")
    (box.config / "outside.toml").write_text(
        f"""
        [github]
        owner = "me"
        url = "{github.url}"
        api_url = "{github.url}/api"
        [repositories.memory]
        repository = "store"
        kind = "backup"
        schedule = "0 3 * * 0"
        paths = {{ MEMORY = "{files}" }}
        leave_out = ["*/skip/*"]
        file_bytes = 10_000
        [repositories.config]
        repository = "store"
        kind = "sync"
        schedule = "*/30 * * * *"
        paths = {{ config = "{files}" }}
        """
    )
    return Jobs(box)
