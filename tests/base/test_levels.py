"""Levels as data: what is shipped, what the owner may lay over it, and every fault by name."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest

from base import roster
from base.errors import SettingsError
from base.levels import NAMES, Levels
from base.settings import Settings


def home(tmp_path: Path, text: str = "") -> Settings:
    settings = Settings(home=tmp_path / "home")
    (settings.config / "agents").mkdir(parents=True)
    if text:
        (settings.config / "levels.toml").write_text(text)
    return settings


def faults(tmp_path: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        Levels.load(home(tmp_path, text))
    return caught.value.faults


def test_the_shipped_four_mean_what_the_plan_says() -> None:
    levels = Levels.load()
    assert [levels.get(rank).name for rank in range(4)] == list(NAMES) == list(levels.known)
    restricted, standard, elevated, privileged = (levels.get(name) for name in NAMES)
    assert (restricted.read, restricted.write, restricted.network) == ((), (), ())
    assert (restricted.workspace, restricted.execute) == ("read", False)
    assert standard.read == ("/var/www",)
    assert standard.write == ()
    assert standard.network == ("github.com:443", "package-indexes")
    assert (standard.workspace, standard.execute) == ("write", True)
    assert set(standard.read) < set(elevated.read) >= {"/etc/nginx", "/var/log"}
    assert elevated.write == ("/var/www",)
    assert "*:443" in elevated.network
    assert privileged.rank == 3
    assert (levels.user("user"), levels.user("admin"), levels.user(None)) == (1, 3, 0)


def test_limits_never_shrink_as_the_rank_grows() -> None:
    levels = Levels.load()
    for low, high in itertools.pairwise(NAMES):
        below, above = levels.get(low).limits.model_dump(), levels.get(high).limits.model_dump()
        assert all(above[key] >= below[key] for key in below), (low, high)


@pytest.mark.parametrize(
    ("ranks", "least"), [((2, 1, 3), 1), ((0, 3), 0), ((2,), 2), ((), 0), ((3, 3), 3)]
)
def test_the_least_rank_holds(ranks: tuple[int, ...], least: int) -> None:
    assert Levels.load().least(*ranks) == least


@pytest.mark.parametrize(
    ("own", "rank", "name"),
    [
        ("elevated", 2, "elevated"),
        ("elevated", 3, "elevated"),
        ("elevated", 1, "standard"),
        ("elevated", 0, "restricted"),
        (1, 1, "standard"),
        ("publisher", 1, "publisher"),
        ("publisher", 0, "restricted"),
    ],
)
def test_an_agent_works_at_its_own_level_or_the_orders(
    tmp_path: Path, own: str | int, rank: int, name: str
) -> None:
    text = '[levels.publisher]\nabove = "standard"\nwrite = ["/srv/site"]\n'
    assert Levels.load(home(tmp_path, text)).working(own, rank).name == name


def test_a_level_of_the_owners_stands_above_a_shipped_one(tmp_path: Path) -> None:
    text = """
[users]
user = 2
[levels.standard.limits]
processes = 99
[levels.publisher]
above = "standard"
write = ["/srv/site"]
network = ["*.example.org:8443"]
[levels.publisher.limits]
wall_s = 7
"""
    levels = Levels.load(home(tmp_path, text))
    standard, publisher = levels.get("standard"), levels.get("publisher")
    assert standard.limits.processes == 99
    assert standard.execute
    assert (publisher.rank, publisher.name, publisher.execute) == (1, "publisher", True)
    assert (publisher.write, publisher.read) == (("/srv/site",), ("/var/www",))
    assert (publisher.limits.wall_s, publisher.limits.processes) == (7, 99)
    assert (levels.user("user"), levels.user("admin")) == (2, 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[levels.standard]\nrank = 3", "levels.standard: rank and name cannot be set"),
        ("[levels.standard]\nabove = 'elevated'", "levels.standard: a shipped level"),
        ("[levels.mine]\nexecute = true", "levels.mine: above: None must be one of"),
        ("[levels.mine]\nabove = 'mine'", "levels.mine: above: 'mine' must be one of"),
        ("[levels.Mine]\nabove = 'standard'", "levels.Mine: the name must match"),
        ("[levels.mine]\nabove='standard'\nwriet=[]", "levels.mine.wriet: "),
        ("[levels.mine]\nabove='standard'\nwrite=['srv']", "levels.mine.write: "),
        ("[levels.mine]\nabove='standard'\nwrite=['/srv/../etc']", "levels.mine.write: "),
        ("[levels.mine]\nabove='standard'\nread=['/']", "levels.mine.read: "),
        ("[levels.mine]\nabove='standard'\nread=['/proc/1']", "levels.mine.read: "),
        ("[levels.mine]\nabove='standard'\nread=['/run']", "levels.mine.read: "),
        ("[levels.mine]\nabove='standard'\nnetwork=['example.org']", "levels.mine.network: "),
        ("[levels.mine]\nabove='standard'\nnetwork=['*x.org:443']", "levels.mine.network: "),
        ("[levels.mine]\nabove='standard'\nnetwork=['a.org:70000']", "levels.mine.network: "),
        ("[levels.mine]\nabove='standard'\n[levels.mine.limits]\ncpu=1", "mine.limits.cpu: "),
        ("[levels.mine]\nabove='standard'\nlimits=4", "levels.mine: limits: must be a table"),
        ("[levels.restricted]\nexecute=true", "levels.restricted: "),
        ("[levels.restricted]\nworkspace='write'", "levels.restricted: "),
        ("[levels]\nmine = 3", "levels.mine: must be a table"),
        ("[users]\nuser = 4", "users.user: 4 must be a rank"),
        ("[users]\nuser = true", "users.user: True must be a rank"),
        ("users = 3", "users: must be a table"),
        ("[groups]\na = 1", "groups: unknown"),
        ("[levels", "levels.toml: "),
    ],
)
def test_a_fault_names_file_and_field(tmp_path: Path, text: str, said: str) -> None:
    found = faults(tmp_path, text)
    assert any(said in fault for fault in found), found
    assert all("levels.toml" in fault for fault in found)


def test_every_fault_is_named_not_only_the_first(tmp_path: Path) -> None:
    text = "[users]\nuser=9\n[levels.a]\n[levels.b]\nabove='standard'\nread=['x']\nnetwork=['y']"
    found = faults(tmp_path, text)
    for where in ("users.user", "levels.a", "levels.b.read", "levels.b.network"):
        assert any(where in fault for fault in found), (where, found)


def test_no_level_of_the_owners_opens_the_products_own_state(tmp_path: Path) -> None:
    inside = tmp_path / "home" / "secrets"
    for folder in (inside, tmp_path, tmp_path / "home"):
        for field in ("read", "write"):
            text = f"[levels.mine]\nabove='standard'\n{field}=['{folder}']\n"
            shutil.rmtree(tmp_path / "home", ignore_errors=True)
            assert any("own state" in fault for fault in faults(tmp_path, text)), folder


def test_no_such_level_lists_those_there_are() -> None:
    for wrong in ("root", 4, -1, "2"):
        with pytest.raises(SettingsError, match="restricted, standard, elevated, privileged"):
            Levels.load().get(wrong)


def test_an_agent_names_its_level_by_rank_or_name(tmp_path: Path) -> None:
    settings = home(tmp_path, "[levels.publisher]\nabove='standard'\n")
    for name, level in (
        ("a", "'publisher'"),
        ("b", "2"),
        ("c", "'root'"),
        ("d", "7"),
        ("e", "1.5"),
    ):
        (settings.config / "agents" / f"{name}.toml").write_text(
            f"title='t'\ncapabilities=['x']\nprompt='p'\nlevel={level}\n"
        )
    found = roster.load(settings)
    assert found.agents["a"].level == "publisher"
    assert found.agents["b"].level == 2
    assert not {"c", "d", "e"} & found.agents.keys()
    for name in ("c", "d", "e"):
        (fault,) = [one for one in found.faults if f"/{name}.toml" in one]
        assert "level" in fault


def test_agents_of_a_level_that_did_not_load_do_not_run(tmp_path: Path) -> None:
    settings = home(tmp_path, "[levels.publisher]\nabove='standard'\nread=['/']\n")
    (settings.config / "agents" / "a.toml").write_text(
        "title='t'\ncapabilities=['x']\nprompt='p'\nlevel='publisher'\n"
    )
    found = roster.load(settings)
    assert "a" not in found.agents
    assert "code" in found.agents
    assert any("levels.publisher.read" in fault for fault in found.faults)
