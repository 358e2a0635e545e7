"""A change of the sites, against a real nginx: what is served, refused, taken back, undone."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from nginx_rig import Ground, ground, make_box, program, unverified

from base.errors import ConflictError, InputError, NotFoundError, NotRunningError
from provision import front, trial
from provision.box import Box
from provision.owner import Owner
from provision.sites import Sites
from provision.spec import Spec, check

__all__ = ["ground"]


def tree(folder: Path) -> dict[str, str]:
    """Everything below a folder: links and contents."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = "-> " + str(path.readlink())
        elif path.is_file():
            found[name] = path.read_text()
    return found


async def test_sites_that_something_else_laid_are_served_again(ground: Ground) -> None:
    """After a restore: what nginx refuses of them is set aside, and the record says what was."""
    sites = Sites(ground.box, who="root")
    await sites.apply(ground.static("one.example"))
    await sites.apply(ground.static("tls.example", **ground.certificate("tls.example")))
    kept, lost = ground.box.root / "kept", ground.box.nginx / "ai-infra"
    shutil.copytree(lost, kept, symlinks=True)
    await sites.remove("one.example")
    await sites.remove("tls.example")
    shutil.rmtree(lost)
    assert await front.again(ground.box) == []
    kept.rename(lost)
    shutil.rmtree(ground.box.letsencrypt / "live" / "tls.example")
    (said,) = await front.again(ground.box)
    assert said.startswith("tls.example is set aside")
    assert ground.get("one.example").text == "this is one.example"
    assert [change.verb for change in sites.history()][:2] == ["reload", "remove"]


async def test_a_site_is_served_changed_and_removed(ground: Ground) -> None:
    sites = Sites(ground.box, who="root", why="a test")
    first = await sites.apply(ground.static("one.example", names=("www.one.example",)))
    assert first.state == "done"
    assert "+    server_name one.example www.one.example;" in first.diff
    assert ground.get("one.example").text == "this is one.example"
    assert ground.get("www.one.example").text == "this is one.example"
    assert ground.get("owner.example").text == "the owner's"
    assert ground.get("one.example", "/.git/config").status_code == 404
    with program("the program") as (upstream, asked):
        await sites.apply(Spec(domain="one.example", kind="proxy", upstream=upstream))
        seen = ground.get("one.example", headers={"X-Forwarded-For": "6.6.6.6"})
        assert seen.text == "the program"
        assert asked[-1]["x-forwarded-for"] == "127.0.0.1"
        assert asked[-1]["host"] == f"one.example:{ground.box.http_port}"
    await sites.disable("one.example")
    assert ground.get("one.example").text == "the owner's"  # nginx's own choice for the unknown
    assert [spec.enabled for spec in sites.specs()] == [False]
    again = await sites.enable("one.example")
    assert ground.get("one.example").status_code == 502
    assert "does not answer" in again.notes[0]
    await sites.remove("one.example")
    assert sites.specs() == []
    verbs = [(change.verb, change.who, change.why, change.state) for change in sites.history()]
    assert verbs == [
        (verb, "root", "a test", "done")
        for verb in ("remove", "enable", "disable", "apply", "apply")
    ]


async def test_tls_redirects_challenges_and_a_renewed_certificate(ground: Ground) -> None:
    sites = Sites(ground.box)
    spec = ground.static("tls.example", **ground.certificate("tls.example"))
    challenge = spec.challenge_root / ".well-known" / "acme-challenge" / "token"
    challenge.parent.mkdir(parents=True)
    challenge.write_text("answer")
    await sites.apply(spec)
    led = ground.get("tls.example", "/a?b=c")
    assert led.status_code == 301
    assert led.headers["location"] == f"https://tls.example:{ground.box.https_port}/a?b=c"
    assert ground.get("tls.example", "/.well-known/acme-challenge/token").text == "answer"
    page = ground.get("tls.example", tls=True)
    assert page.text == "this is tls.example"
    assert page.headers["strict-transport-security"] == "max-age=63072000"
    assert page.headers["x-content-type-options"] == "nosniff"
    await sites.apply(Spec(domain="away.example", kind="redirect", target="tls.example"))
    assert ground.get("away.example", "/x").headers["location"] == "https://tls.example/x"
    before = _shown(ground, "tls.example")
    ground.certificate("tls.example")  # renewed: other files in the same place
    change = await sites.reload("tls.example")
    assert (change.diff, change.state) == ("", "done")
    assert _shown(ground, "tls.example") != before


def _shown(ground: Ground, name: str) -> bytes:
    at = ("127.0.0.1", ground.box.https_port)
    with (
        socket.create_connection(at, timeout=5) as plain,
        unverified().wrap_socket(plain, server_hostname=name) as secured,
    ):
        return secured.getpeercert(True) or b""


async def test_what_the_owner_breaks_is_refused_in_nginxs_words(ground: Ground) -> None:
    sites = Sites(ground.box)
    await sites.apply(ground.static("one.example"))
    broken = ground.owner("broken", "server { listen PORT; lisstten 1; }\n")
    before = tree(ground.box.nginx)
    with pytest.raises(ConflictError, match=r"not ours: .*lisstten.*sites-enabled/broken:1"):
        await sites.apply(ground.static("two.example"))
    assert tree(ground.box.nginx) == before
    assert ground.get("one.example").text == "this is one.example"
    broken.unlink()
    await sites.apply(ground.static("two.example"))
    assert ground.get("two.example").text == "this is two.example"


async def test_one_broken_site_of_ours_does_not_block_another(ground: Ground) -> None:
    sites = Sites(ground.box)
    await sites.apply(ground.static("one.example", **ground.certificate("one.example")))
    (ground.box.letsencrypt / "live" / "one.example" / "fullchain.pem").unlink()
    change = await sites.apply(ground.static("two.example"))
    assert change.state == "done"
    assert "cannot load certificate" in sites.problems()["one.example"]
    assert "one.example is set aside" in change.notes[0]
    assert ground.get("two.example").text == "this is two.example"
    with pytest.raises(ConflictError, match=r"nginx refuses one.example: .*cannot load cert"):
        await sites.apply(sites.spec("one.example"))
    await sites.apply(ground.static("three.example"))
    assert set(sites.problems()) == {"one.example"}
    ground.certificate("one.example")
    await sites.apply(ground.static("three.example"))  # any change tries it again
    assert sites.problems() == {}
    assert ground.get("one.example", tls=True).text == "this is one.example"


async def test_a_certificate_of_another_key_is_refused(ground: Ground) -> None:
    mixed = ground.certificate("a.example") | {"key": ground.certificate("b.example")["key"]}
    with pytest.raises(ConflictError, match="key values mismatch"):
        await Sites(ground.box).apply(ground.static("a.example", **mixed))
    assert Sites(ground.box).specs() == []


async def test_what_nginx_does_not_take_after_all_is_rolled_back(ground: Ground) -> None:
    """The trial has no network: a name that nobody knows is found at the reload alone."""
    sites = Sites(ground.box)
    await sites.apply(ground.static("one.example"))
    where = "server { listen 127.0.0.1:PORT; server_name x.example; location / { %s } }\n"
    ground.owner("nowhere", where % "proxy_pass http://nowhere.invalid;")
    with pytest.raises(ConflictError, match="host not found in upstream"):
        await sites.apply(ground.static("two.example"))
    change = sites.history()[0]
    assert (change.state, change.domain) == ("rolled back", "two.example")
    assert not any("old configuration" in note for note in change.notes)
    assert [spec.domain for spec in sites.specs()] == ["one.example"]
    assert ground.get("one.example").text == "this is one.example"


async def test_a_change_that_harms_a_site_of_the_owners_is_rolled_back(tmp_path: Path) -> None:
    """The owner listens on all addresses, ours would listen on one: that one takes over."""
    ground = Ground(box=make_box(tmp_path))
    ground.owner("shop", 'server { listen PORT; server_name shop.example; return 200 "open"; }\n')
    ground.start()
    try:
        started_s = time.monotonic()
        with pytest.raises(
            ConflictError, match=r"shop.example:\d+ answered 200 before and 404 now"
        ):
            await Sites(ground.box).apply(ground.static("new.example"))
        assert time.monotonic() - started_s < 20
        change = Sites(ground.box).history()[0]
        assert change.state == "rolled back"
        assert change.rollback_ms is not None
        assert change.rollback_ms < 10_000
        print("figure rollback_ms", change.rollback_ms, "whole change", change.took_ms)
        assert ground.get("shop.example").text == "open"
        assert not (ground.box.nginx / "ai-infra" / "current").exists()
    finally:
        ground.stop()


async def test_ours_answer_where_the_owner_listens_on_one_address(tmp_path: Path) -> None:
    box = make_box(tmp_path)
    ground = Ground(box=replace(box, listen=("127.0.0.2",)))
    ground.owners_site("owner.example", "the owner's")
    ground.start()
    try:
        await Sites(ground.box).apply(ground.static("new.example"))
        assert ground.get("new.example").text == "this is new.example"
        assert ground.get("unknown.example").text == "the owner's"
    finally:
        ground.stop()


async def test_the_default_answers_nothing(tmp_path: Path) -> None:
    ground = Ground(box=make_box(tmp_path))
    ground.start()
    try:
        await Sites(ground.box).apply(ground.static("a.example", **ground.certificate("a.example")))
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            ground.get("unknown.example")
        with pytest.raises(httpx.ConnectError, match="UNRECOGNIZED_NAME"):
            ground.get("unknown.example", tls=True)
        assert ground.get("a.example", tls=True).text == "this is a.example"
    finally:
        ground.stop()


async def test_undo_brings_back_what_was(ground: Ground) -> None:
    sites = Sites(ground.box)
    first = await sites.apply(ground.static("one.example", "first"))
    moved = Spec(domain="one.example", kind="redirect", target="two.example")
    second = await sites.apply(moved)
    assert ground.get("one.example").status_code == 301
    await sites.undo()
    assert ground.get("one.example").text == "first"
    with pytest.raises(ConflictError, match="changed again"):
        await sites.undo(second.id)
    undone = await sites.undo(first.id)
    assert (undone.verb, undone.why, undone.after) == ("undo", f"undoes {first.id}", None)
    assert sites.specs() == []
    with pytest.raises(NotFoundError):
        await sites.undo("20260101T000000-none")
    removed = await sites.undo()  # the last change was an undo: it comes back
    assert removed.state == "done"
    assert ground.get("one.example").text == "first"


async def test_a_plan_changes_nothing(ground: Ground) -> None:
    sites = Sites(ground.box)
    before = tree(ground.box.nginx)
    steps = await sites.plan("one.example", ground.static("one.example"))
    assert any("+    server_name one.example;" in step for step in steps)
    assert tree(ground.box.nginx) == before
    with pytest.raises(ConflictError, match=r"served already, by .*owner.example"):
        await sites.plan("owner.example", ground.static("owner.example"))
    await sites.apply(ground.static("one.example", names=("www.one.example",)))
    with pytest.raises(ConflictError, match=r"belongs to the site one.example"):
        await sites.apply(ground.static("www.one.example"))


async def test_one_change_at_a_time_and_none_without_nginx(ground: Ground) -> None:
    sites = Sites(ground.box)
    both = await asyncio.gather(
        sites.apply(ground.static("one.example")),
        sites.apply(ground.static("two.example")),
        return_exceptions=True,
    )
    assert [type(one).__name__ for one in both] == ["Change", "ConflictError"]
    ground.stop()
    with pytest.raises(NotRunningError):
        await sites.apply(ground.static("two.example"))
    assert [spec.domain for spec in sites.specs()] == ["one.example"]
    ground.start()


HOSTILE: tuple[tuple[str, object], ...] = (
    ("domain", "one.example; return 200"),
    ("domain", "one.example\nserver"),
    ("domain", "*.example"),
    ("domain", "ONE.example"),
    ("domain", "münchen.example"),
    ("domain", "../etc"),
    ("domain", "127.0.0.1"),
    ("domain", "localhost"),
    ("names", ("www.one.example", "a b.example")),
    ("names", tuple(f"n{n}.example" for n in range(60))),
    ("kind", "stream"),
    ("root", Path("/")),
    ("root", Path("/etc")),
    ("root", None),
    ("root", Path("/var/www/../../etc")),
    ("root", Path("/var/www/a;b")),
    ("root", Path("/var/www/$host")),
    ("upstream", "http://127.0.0.1:80"),
    ("target", "two.example"),
    ("certificate", Path("/etc/passwd")),
    ("key", Path("/etc/shadow")),
    ("challenge_root", Path('/tmp/"x')),
)
UPSTREAMS = ("http://169.254.169.254", "http://127.0.0.1:99999", "unix:/run/x", "http://[::1]:0")


def test_hostile_descriptions_are_refused() -> None:
    good = Spec(domain="one.example", root=Path("/var/www/one.example"))
    check(good, Box())
    for name, value in HOSTILE:
        with pytest.raises(InputError):
            check(replace(good, **{name: value}), Box())  # type: ignore[arg-type]
    for upstream in UPSTREAMS:
        with pytest.raises(InputError):
            check(Spec(domain="one.example", kind="proxy", upstream=upstream), Box())
    for target in ("one.example", "x y.example", "evil.example/$host", "10.0.0.1"):
        with pytest.raises(InputError):
            check(Spec(domain="one.example", kind="redirect", target=target), Box())


async def test_the_trial_writes_nothing(ground: Ground, tmp_path: Path) -> None:
    evil = tmp_path / "cron"
    evil.mkdir()
    site = ground.owner(
        "evil",
        f"server {{ listen 127.0.0.1:PORT; server_name e.example; access_log {evil}/job; }}\n",
    )
    sites = Sites(ground.box)
    await sites.plan("one.example", ground.static("one.example"))
    assert list(evil.iterdir()) == []
    unknown = Owner(servers=(), writes=(), hosts=())  # as if nobody had told what is written
    said = await trial.faults(ground.box, unknown, ground.box.nginx / "ai-infra", None)
    assert said is not None
    assert "Read-only file system" in said
    assert list(evil.iterdir()) == []
    plain = ["nginx", "-t", "-q", "-c", str(ground.box.nginx / "nginx.conf")]
    subprocess.run(plain, check=True, timeout=20)
    assert [path.name for path in evil.iterdir()] == ["job"]  # without the sandbox it does
    site.unlink()
