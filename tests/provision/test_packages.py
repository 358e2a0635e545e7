"""A release that wants other packages: real pip, and an index that counts what it is asked for."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from acme_rig import umask
from test_environment import release
from wheels import Index, serving, setuptools, wheel

from base.errors import ConflictError
from provision import environment, packages, source, update

FIRST = '"alpha==1.0", "beta==1.0", "delta==1.0", "heavy==1.0"'
NOT_THERE = '"alpha==1.0", "no-such-package==1.0", "heavy==1.0"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """first: a release that was installed the long way. told: what was said since."""

    folder: Path
    index: Index
    first: Path
    pip: dict[str, str]
    told: list[str] = field(default_factory=list)

    async def tell(self, text: str) -> None:
        self.told.append(text)

    async def make(self, release: Path, before: Path | None = None) -> None:
        self.index.forget()
        await environment.make(release, before or self.first, self.pip, self.tell)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """alpha and delta stand for themselves, beta needs gamma, delta needs epsilon, and heavy brings
    what builds a release, as PyTorch does. Of some there is another version since.
    """
    folder = tmp_path_factory.mktemp("ground")
    shelf = folder / "shelf"
    setuptools(shelf)
    wheel(shelf, "alpha", "1.0")
    wheel(shelf, "beta", "1.0", "gamma>=1")
    wheel(shelf, "gamma", "1.0")
    wheel(shelf, "delta", "1.0", "epsilon")
    wheel(shelf, "epsilon", "1.0", "no-such-package; extra == 'more'")
    wheel(shelf, "heavy", "1.0", "setuptools>=71", "no-such-package; python_version < '3'")
    with serving(shelf) as index, umask(0o027):  # the broker's
        pip = {"HOME": str(folder), "PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url}
        made = Ground(folder=folder, index=index, first=release(folder, "0.1.0", FIRST), pip=pip)
        asyncio.run(made.make(made.first, folder / "nothing"))
        wheel(shelf, "alpha", "2.0")
        wheel(shelf, "gamma", "2.0")
        wheel(shelf, "beta", "2.0", "gamma>=2")
        yield made


@pytest.fixture
def ground(installed: Ground, tmp_path: Path) -> Ground:
    return replace(installed, folder=tmp_path, told=[])


def has(release: Path) -> dict[str, str]:
    (site,) = (release / ".venv" / "lib").glob("python3*/site-packages")
    return {name: one.version for name, one in packages.there(site).items()}


def says(release: Path, program: str) -> str:
    line = [release / ".venv" / "bin" / program]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()


def contents(release: Path) -> dict[str, str]:
    """Of each file of its environment, but for what Python compiles for itself."""
    paths = [path for path in (release / ".venv").rglob("*") if path.is_file()]
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if path.suffix != ".pyc"
    }


async def test_only_what_differs_is_fetched_and_what_is_not_wanted_goes(ground: Ground) -> None:
    before = contents(ground.first)
    new = release(ground.folder, "0.2.0", '"alpha==2.0", "beta==1.0", "heavy==1.0"')
    await ground.make(new)
    assert ground.index.asked == ["alpha", "alpha-2.0-py3-none-any.whl"]
    assert (says(new, "alpha"), says(new, "gamma"), says(new, "ai-infra")) == (
        "2.0",
        "1.0",
        "0.2.0",
    )
    assert not (new / ".venv" / "bin" / "delta").exists()
    assert ground.told == [
        "its packages are those of 0.1.0, but: alpha==2.0, no delta any more",
        "1 came (alpha 2.0), 2 went (delta, epsilon), 5 packages shared with the release before",
    ]
    # The release before is as it was, to the byte, and what both want lies on the disk once.
    assert contents(ground.first) == before
    assert (says(ground.first, "alpha"), says(ground.first, "delta")) == ("1.0", "1.0")
    for at in ("beta/text.txt", "alpha/text.txt"):
        (old,) = (ground.first / ".venv" / "lib").glob(f"python3*/site-packages/{at}")
        same = os.path.samefile(old, new / old.relative_to(ground.first))
        assert same == at.startswith("beta")
    # It is what all packages anew come to, but for what nobody pins, which stays as it is.
    fresh = release(ground.folder / "fresh", "0.2.0", '"alpha==2.0", "beta==1.0", "heavy==1.0"')
    await ground.make(fresh, ground.folder / "nothing")
    assert has(fresh) == has(new) | {"gamma": "2.0"}
    closed = [path for path in (new / ".venv").rglob("*") if not path.is_symlink()]
    assert [path for path in closed if path.stat().st_mode & 0o004 == 0] == []


async def test_what_a_package_needs_now_comes_with_it(ground: Ground) -> None:
    new = release(ground.folder, "0.2.0", FIRST.replace("beta==1.0", "beta==2.0"))
    await ground.make(new)
    assert sorted(one for one in ground.index.asked if one.endswith(".whl")) == [
        "beta-2.0-py3-none-any.whl",
        "gamma-2.0-py3-none-any.whl",
    ]
    assert has(new) == has(ground.first) | {
        "ai-infrastructure": "0.2.0", "beta": "2.0", "gamma": "2.0",
    }  # fmt: skip


async def test_one_that_only_takes_away_asks_no_index(ground: Ground) -> None:
    new = release(ground.folder, "0.2.0", '"beta==1.0", "heavy==1.0"')
    await ground.make(new)
    assert ground.index.asked == []
    assert set(has(ground.first)) - set(has(new)) == {"alpha", "delta", "epsilon"}


async def test_one_that_cannot_be_had_is_named_and_nothing_else_is_fetched(ground: Ground) -> None:
    before = contents(ground.first)
    new = release(ground.folder, "0.2.0", NOT_THERE)
    said = r"^pip install: Could not find a version .* no-such-package==1\.0"
    with pytest.raises(ConflictError, match=said):
        await ground.make(new)
    assert [one for one in ground.index.asked if one.endswith(".whl")] == []
    assert contents(ground.first) == before


@pytest.mark.parametrize("how", ["no pip", "pip check"])
async def test_where_the_packages_before_do_not_do_all_come_anew(ground: Ground, how: str) -> None:
    (site,) = (ground.first / ".venv" / "lib").glob("python3*/site-packages")
    at = site / "pip" if how == "no pip" else next(site.glob("pip-*.dist-info")) / "METADATA"
    kept = at.with_name(f"{at.name}.kept")
    at.rename(kept)
    if how == "pip check":  # pip takes the word of what is there, and finds in the end that it lied
        told = kept.read_text().replace("\n\n", "\nRequires-Dist: alpha<2\n\n", 1)
        at.write_text(told)
    new = release(ground.folder, "0.2.0", '"alpha==2.0", "heavy==1.0"')
    try:
        await ground.make(new)
    finally:
        kept.replace(at)
    *_, said = ground.told
    assert said.startswith("those of 0.1.0 do not do (")
    assert ("alpha<2" if how == "pip check" else "No module named pip") in said
    assert said.endswith("): all packages anew")
    assert says(new, "alpha") == "2.0"
    assert sorted(has(new)) == ["ai-infrastructure", "alpha", "heavy", "pip", "setuptools"]


@dataclass(kw_only=True)
class Product:
    """As much of one as is there before the switch."""

    ground: Ground
    root: Path
    state: Path
    origin: source.Origin
    did: list[str] = field(default_factory=list)

    async def room(self) -> str:
        return ""

    async def build(self, release: Path, tell: update.Tell) -> None:
        await environment.make(release, self.ground.first, self.ground.pip, tell)

    async def back_up(self) -> str:
        self.did.append("back up")
        raise ConflictError("this far")

    async def migrate(self, release: Path) -> None: ...
    async def restart(self, release: Path) -> None: ...
    async def settle(self) -> None: ...
    async def healthy(self, version: str) -> str:
        return ""

    async def answers(self, version: str) -> str:
        return ""


async def test_cut_off_while_it_fetches_nothing_is_left(ground: Ground) -> None:
    root, shop = ground.folder / "opt", ground.folder / "shop"
    (root / "releases").mkdir(parents=True)
    (root / "releases" / "0.1.0").symlink_to(ground.first)
    (root / "current").symlink_to(ground.first)
    release(shop, "0.2.0", FIRST.replace("alpha==1.0", "alpha==2.0"))
    release(shop, "0.3.0", NOT_THERE)
    product = Product(
        ground=ground, root=root, state=ground.folder / "s", origin=source.Origin(source=str(shop))
    )
    before = contents(ground.first)
    ground.index.stuck.set()
    at_work = asyncio.create_task(update.apply(product, "0.2.0", ground.tell), name="update")
    assert await asyncio.to_thread(ground.index.waits.wait, 60)
    at_work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await at_work
    ground.index.stuck.clear()
    assert [path.name for path in (root / "releases").iterdir()] == ["0.1.0"]
    assert not (product.state / "update.json").exists()
    with pytest.raises(ConflictError, match=r"no-such-package==1\.0.*0\.1\.0 runs on as it did"):
        await update.apply(product, "0.3.0", ground.tell)
    assert [path.name for path in (root / "releases").iterdir()] == ["0.1.0"]
    assert (contents(ground.first), product.did) == (before, [])
    with pytest.raises(ConflictError, match="this far"):
        await update.apply(product, "0.2.0", ground.tell)
    assert says(root / "releases" / "0.2.0", "alpha") == "2.0"
