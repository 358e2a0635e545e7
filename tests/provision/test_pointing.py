"""Where names must point before anything is made, asked of a DNS server that says what we say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import acme_rig
import pytest
from acme_rig import Names

from base.errors import ConflictError
from provision import pointing
from provision.box import Box

HERE_4, HERE_6, ELSEWHERE = "203.0.113.5", "2001:db8::5", "198.51.100.9"
NAME = "site.example"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Names]:
    with acme_rig.names(tmp_path_factory.mktemp("names")) as made:
        yield made


@pytest.fixture
def box(world: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    monkeypatch.setenv("AI_INFRA_HOME", str(tmp_path / "home"))
    return Box(config=tmp_path, addresses=(HERE_4, HERE_6), nameserver=f"127.0.0.1:{world.port}")


def token(box: Box) -> None:
    folder = box.config / "secrets"
    folder.mkdir(mode=0o700)
    (folder / "cloudflare-token").write_text("a-token\n")
    (folder / "cloudflare-token").chmod(0o600)


@pytest.mark.parametrize(
    ("addresses", "said"),
    [
        ([HERE_4], None),
        ([HERE_6], None),
        ([HERE_4, HERE_6], None),
        ([ELSEWHERE], f"{NAME} points to {ELSEWHERE}."),
        ([HERE_4, ELSEWHERE], f"{NAME} also points to {ELSEWHERE}."),
        ([HERE_4, "2001:db8::99"], f"{NAME} also points to 2001:db8::99."),
        ([], f"{NAME} has no address yet"),
        (["104.16.0.9"], f"{NAME} points to Cloudflare (104.16.0.9), which is not configured"),
        (["2606:4700::9"], f"{NAME} points to Cloudflare (2606:4700::9)"),
        (["127.0.0.1"], f"{NAME} points to 127.0.0.1"),
        (["169.254.169.254"], f"{NAME} points to 169.254.169.254"),
    ],
)
async def test_addresses(world: Names, box: Box, addresses: list[str], said: str | None) -> None:
    world.point(NAME, *addresses)
    if said is None:
        await pointing.check([NAME], box)
        return
    with pytest.raises(ConflictError) as refused:
        await pointing.check([NAME], box)
    assert said in str(refused.value)
    assert f"This machine is {HERE_4}, {HERE_6}" in str(refused.value)


async def test_every_name_is_told_of(world: Names, box: Box) -> None:
    world.point("a.example", HERE_4)
    world.point("b.example", ELSEWHERE)
    world.point("c.example")
    world.fail("d.example")
    with pytest.raises(ConflictError) as refused:
        await pointing.check(["a.example", "b.example", "c.example", "d.example"], box)
    assert "a.example" not in str(refused.value)
    assert f"b.example points to {ELSEWHERE}; c.example has no address yet" in str(refused.value)
    assert "no answer about d.example" in str(refused.value)


async def test_cloudflare_may_stand_in_front_when_it_is_ours(world: Names, box: Box) -> None:
    token(box)
    world.point("proxied.example", "104.16.0.9", "2606:4700::9")
    await pointing.check(["proxied.example"], box)
    world.point("half.example", "104.16.0.9", ELSEWHERE)
    with pytest.raises(ConflictError, match=f"half.example also points to {ELSEWHERE}"):
        await pointing.check(["half.example"], box)


async def test_a_machine_that_knows_no_public_address_says_so(
    world: Names, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Family:
        name = "AF_INET"

    class Private:
        family, address = Family, "10.0.0.4"

    monkeypatch.setattr(pointing.psutil, "net_if_addrs", lambda: {"eth0": [Private]})
    world.point(NAME, HERE_4)
    with pytest.raises(ConflictError, match=r"This machine is 10\.0\.0\.4; behind a router"):
        await pointing.check([NAME], replace(box, addresses=()))
    world.point(NAME, "10.0.0.4")
    await pointing.check([NAME], replace(box, addresses=()))


async def test_nobody_answers(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pointing, "LOOK_S", 0.2)
    nowhere = replace(box, nameserver=f"127.0.0.1:{acme_rig.free_port()}")
    with pytest.raises(ConflictError, match=f"no answer about {NAME}"):
        await pointing.check([NAME], nowhere)
