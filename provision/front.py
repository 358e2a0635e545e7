"""The portal's own front, for the installer: `python -m provision.front --portal NAME …`.

Lays nginx.conf where the machine's own is as the package brought it, takes the package's welcome
page away, and serves the portal and the API by the same protocol as every site. An nginx.conf
that somebody changed stays. `--challenge` asks for a certificate that browsers know; that there
is none yet is told and no fault. `--again` has nginx read all sites as they lie, after a restore.
`--remove` leaves nginx as it was found, and keeps what people's
sites were for a later installation; with `--purge` their files go, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from base.errors import AIError, ConflictError, InputError
from base.settings import load
from base.verbs import Challenge
from provision import front_tls, nginx, owner, rules, trial
from provision.box import Box
from provision.certbot import challenges, home
from provision.certs import Certs
from provision.child import command
from provision.disk import write
from provision.generations import HOOK, Generations
from provision.managed import Register
from provision.sites import Sites
from provision.spec import ANY, FRONT, Kind, Spec
from provision.template import Templates

PACKAGED = Path("/etc/nginx")
OURS = b"# Written by AI Infrastructure"
PACKAGES = ("nginx", "nginx-common")
HOOKED = ("sites-enabled", "conf.d")


async def lay(box: Box, specs: list[Spec], *, check: bool = False) -> list[str]:
    """What was changed (with `check`: would be), in words; again: nothing. Raises as `Sites`."""
    said = [] if check else _brought_back(box)
    said += await _main(box, check=check)
    said += await _welcome(box, check=check)
    sites = Sites(box, who="the installer", why="the portal's front")
    hooked = any((box.nginx / folder / HOOK).exists() for folder in HOOKED)
    present = {spec.domain: spec for spec in sites.specs(front=True)}
    wanted = {spec.domain: spec for spec in specs}
    for spec in specs:
        if present.get(spec.domain) != spec or not hooked:
            said.append(f"{spec.kind} at {spec.domain}")
            await (sites.plan(spec.domain, spec) if check else sites.apply(spec))
    for domain, spec in present.items():
        if spec.kind in FRONT and domain not in wanted:
            said.append(f"no {spec.kind} at {domain} any more")
            await (sites.plan(domain, None) if check else sites.withdraw(domain))
            if not check:
                await Certs(box).forget(domain, files=False)
    return said


async def remove(box: Box, *, purge: bool = False) -> list[str]:
    """Everything of ours leaves nginx's folder; what was there before is there again. The sites
    are set aside for `lay`; purge: their files and logs are deleted instead.
    """
    said = _purged(box) if purge else []
    for folder in HOOKED:
        hook = box.nginx / folder / HOOK
        if hook.exists():
            hook.unlink()
            said.append(str(hook))
    before, conf = _before(box), box.nginx / "nginx.conf"
    if before.exists() and conf.exists() and conf.read_bytes().startswith(OURS):
        write(conf, before.read_bytes())
        before.unlink()
        said.append("nginx.conf")
    if _link_record(box).exists():
        welcome = box.nginx / "sites-enabled" / "default"
        if not os.path.lexists(welcome):
            welcome.symlink_to(_link_record(box).read_text())
            said.append(str(welcome))
        _link_record(box).unlink()
    root = Generations(box).root
    if root.exists():
        if not purge:
            _copy(root, _aside(box))
        gone = root.with_name(f".{root.name}.gone")
        shutil.rmtree(gone, ignore_errors=True)
        root.rename(gone)
        shutil.rmtree(gone)
        said.append(str(root))
    if said:
        _tell_nginx(box)
    return said


async def again(box: Box) -> list[str]:
    """nginx serves the sites as they lie, each tried before; those that are set aside, with its
    words. Raises as `Sites`.
    """
    if Generations(box).current() is None:
        _tell_nginx(box)
        return []
    sites = Sites(box, who="a restore")
    await sites.again()
    return [f"{name} is set aside: {said}" for name, said in sites.problems().items()]


def _brought_back(box: Box) -> list[str]:
    """The sites that a removal set aside are there again, for nginx to be told of."""
    root = Generations(box).root
    if root.exists() or not _aside(box).is_dir():
        return []
    _copy(_aside(box), root)
    shutil.rmtree(_aside(box))
    return ["the sites of before"]


def _purged(box: Box) -> list[str]:
    """What the sites brought into folders that were the owner's already."""
    sites = {spec.domain for spec in Sites(box).specs(front=True)}
    known = sites | {one.domain for one in Register(box).all()}
    found = [challenges(box), home(box)]
    found += [box.www / name for name in known if (box.www / name / "releases").is_dir()]
    found += [path for name in known for path in box.nginx_logs.glob(f"{name}.access.log*")]
    gone = sorted(path for path in found if path.exists())
    for path in gone:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return [str(path) for path in gone]


async def _main(box: Box, *, check: bool) -> list[str]:
    conf = box.nginx / "nginx.conf"
    root = Generations(box).root
    text = Templates(box, await nginx.installed(), root).main().encode()
    present = conf.read_bytes()
    if present == text:
        return []
    if not present.startswith(OURS) and not await _packaged(box, conf):
        return []
    candidate = box.state / "nginx" / "nginx.conf"
    write(candidate, text)
    generations = Generations(box)
    now = generations.current()
    generation = root / "generations" / now if now is not None else None
    words = await trial.faults(box, owner.read(box, root), root, generation, main=candidate)
    candidate.unlink()
    if words is not None:
        raise ConflictError(f"nginx.conf stays as it was: {words}")
    if not check:
        if not present.startswith(OURS):
            write(_before(box), present)
        write(conf, text)
        _tell_nginx(box)
    return ["nginx.conf"]


async def _welcome(box: Box, *, check: bool) -> list[str]:
    """The package's page for every name; ours is to answer nothing to the unknown."""
    welcome = box.nginx / "sites-enabled" / "default"
    if not welcome.is_symlink() or not await _packaged(box, welcome.resolve()):
        return []
    if not check:
        write(_link_record(box), str(welcome.readlink()).encode())
        welcome.unlink()
        _tell_nginx(box)
    return [f"{welcome} (the package's) is taken away"]


async def _packaged(box: Box, file: Path) -> bool:
    """Whether it is byte for byte what Debian's package brought."""
    asked = await command(
        ["dpkg-query", "--show", "--showformat=${Conffiles}\n", *PACKAGES], deadline_s=20
    )
    name = str(PACKAGED / file.relative_to(box.nginx.resolve()))
    sums = {line.split()[1] for line in asked.said.splitlines() if line.split()[:1] == [name]}
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() in sums


def _tell_nginx(box: Box) -> None:
    if (pid := nginx.master(box)) is not None:
        os.kill(pid, signal.SIGHUP)


def _before(box: Box) -> Path:
    return box.state / "nginx" / "nginx.conf.before"


def _copy(folder: Path, place: Path) -> None:
    """Whole or not at all."""
    fresh = place.with_name(f".{place.name}.new")
    for old in (fresh, place):
        shutil.rmtree(old, ignore_errors=True)
    fresh.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copytree(folder, fresh, symlinks=True)
    fresh.rename(place)


def _aside(box: Box) -> Path:
    return box.state / "nginx" / "aside"


def _link_record(box: Box) -> Path:
    return box.state / "nginx" / "default.before"


async def certify(box: Box, domain: str, challenge: Challenge) -> tuple[list[str], str]:
    """What was changed, and why there is no certificate that browsers know, "": there is."""

    async def tell(step: str) -> None:
        typer.echo(step, err=True)

    before = front_tls.shown(box, domain)
    try:
        await front_tls.certify(box, domain, challenge, tell, who="the installer")
    except AIError as error:
        return [], str(error)
    return ([f"certificate of {domain}"] if front_tls.shown(box, domain) != before else []), ""


async def _work(
    box: Box, specs: list[Spec], challenge: Challenge | None, *, check: bool
) -> tuple[list[str], str]:
    made = all(spec.certificate is None or spec.certificate.exists() for spec in specs)
    if check and not made:
        return [f"{spec.kind} at {spec.domain}" for spec in specs], ""
    nameless = any(spec.domain == ANY for spec in specs)
    if nameless and box.https_port in owner.read(box, Generations(box).root).ports:
        raise ConflictError(
            f"sites that are here already listen on {box.https_port}, so a portal without a name "
            "cannot be reached: give it one (ai_domain), or another port (ai_https_port)"
        )
    said, note = await lay(box, specs, check=check), ""
    if challenge is not None and not check:
        for spec in specs:
            more, why = await certify(box, spec.domain, challenge)
            said, note = [*said, *more], note or why
    return said, note


def main(
    portal: Annotated[str | None, typer.Option(help="The portal's name, _ for any.")] = None,
    api: Annotated[str | None, typer.Option(help="A name for the API alone.")] = None,
    upstream: Annotated[str, typer.Option(help="Where the portal listens.")] = (
        "http://127.0.0.1:8000"
    ),
    certificate: Annotated[Path | None, typer.Option(help="With its chain.")] = None,
    key: Annotated[Path | None, typer.Option()] = None,
    challenge: Annotated[str, typer.Option(help="http-01 or dns-01; none: no order.")] = "none",
    state: Annotated[Path | None, typer.Option(help="The broker's own folder.")] = None,
    check: Annotated[bool, typer.Option(help="Only say what would change.")] = False,
    gone: Annotated[bool, typer.Option("--remove", help="Leave nginx as it was found.")] = False,
    read: Annotated[bool, typer.Option("--again", help="Serve the sites as they lie.")] = False,
    purge: Annotated[bool, typer.Option(help="With --remove: sites' files, too.")] = False,
) -> None:
    """Lay the portal's front into nginx. Prints {"changed": [what], "note": ""}; with --again
    {"notes": [what is not served]}.
    """
    note = ""
    try:
        if challenge not in {"none", *get_args(Challenge)}:
            raise InputError(f"there is no challenge {challenge!r}: http-01 or dns-01")
        box = rules.here(load()).box
        box = replace(box, state=state) if state else box
        if read:
            typer.echo(json.dumps({"notes": asyncio.run(again(box))}))
            return
        if gone:
            said = asyncio.run(remove(box, purge=purge))
        else:
            names = [(name, kind) for name, kind in ((portal, "portal"), (api, "api")) if name]
            specs = []
            for name, kind in names:
                files = (certificate, key) if certificate else _files(box, name, check=check)
                base = Spec(domain=name, kind=cast(Kind, kind), upstream=upstream)
                made = replace(base, certificate=files[0], key=files[1])
                specs.append(replace(made, challenge_root=challenges(box)))
            order = None if challenge == "none" else cast(Challenge, challenge)
            said, note = asyncio.run(_work(box, specs, order, check=check))
    except AIError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    typer.echo(json.dumps({"changed": said, "note": note}))


def _files(box: Box, domain: str, *, check: bool) -> tuple[Path, Path]:
    if check and not front_tls.is_own(box, domain) and not Certs(box).paths(domain)[0].is_file():
        return front_tls.own(box)
    return front_tls.shown(box, domain)


if __name__ == "__main__":
    typer.run(main)
