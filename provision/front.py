"""The portal's own front, for the installer: `python -m provision.front --portal NAME …`.

Lays nginx.conf where the machine's own is as the package brought it, takes the package's welcome
page away, and serves the portal and the API by the same protocol as every site. An nginx.conf
that somebody changed stays. `--remove` leaves nginx as it was found.
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
from typing import Annotated

import typer

from base.errors import AIError, ConflictError
from provision import nginx, owner, trial
from provision.box import Box
from provision.child import command
from provision.disk import write
from provision.generations import HOOK, Generations
from provision.sites import Sites
from provision.spec import FRONT, Spec
from provision.template import Templates

PACKAGED = Path("/etc/nginx")
OURS = b"# Written by AI Infrastructure"
PACKAGES = ("nginx", "nginx-common")


async def lay(box: Box, specs: list[Spec], *, check: bool = False) -> list[str]:
    """What was changed (with `check`: would be), in words; again: nothing. Raises as `Sites`."""
    said = await _main(box, check=check)
    said += await _welcome(box, check=check)
    sites = Sites(box, who="the installer", why="the portal's front")
    present = {spec.domain: spec for spec in sites.specs(front=True)}
    wanted = {spec.domain: spec for spec in specs}
    for spec in specs:
        if present.get(spec.domain) != spec:
            said.append(f"{spec.kind} at {spec.domain}")
            await (sites.plan(spec.domain, spec) if check else sites.apply(spec))
    for domain, spec in present.items():
        if spec.kind in FRONT and domain not in wanted:
            said.append(f"no {spec.kind} at {domain} any more")
            await (sites.plan(domain, None) if check else sites.withdraw(domain))
    return said


async def remove(box: Box) -> list[str]:
    """Everything of ours leaves nginx's folder; what was there before is there again."""
    said = []
    for folder in ("sites-enabled", "conf.d"):
        hook = box.nginx / folder / HOOK
        if hook.exists():
            hook.unlink()
            said.append(str(hook))
    before = _before(box)
    if before.exists() and (box.nginx / "nginx.conf").read_bytes().startswith(OURS):
        before.replace(box.nginx / "nginx.conf")
        said.append("nginx.conf")
    if _link_record(box).exists():
        welcome = box.nginx / "sites-enabled" / "default"
        if not os.path.lexists(welcome):
            welcome.symlink_to(_link_record(box).read_text())
            said.append(str(welcome))
        _link_record(box).unlink()
    root = Generations(box).root
    if root.exists():
        shutil.rmtree(root)
        said.append(str(root))
    if said:
        _tell_nginx(box)
    return said


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


def _link_record(box: Box) -> Path:
    return box.state / "nginx" / "default.before"


def main(
    portal: Annotated[str | None, typer.Option(help="The portal's name, _ for any.")] = None,
    api: Annotated[str | None, typer.Option(help="A name for the API alone.")] = None,
    upstream: Annotated[str, typer.Option(help="Where the portal listens.")] = (
        "http://127.0.0.1:8000"
    ),
    certificate: Annotated[Path | None, typer.Option(help="With its chain.")] = None,
    key: Annotated[Path | None, typer.Option()] = None,
    challenges: Annotated[Path | None, typer.Option(help="certbot's webroot.")] = None,
    state: Annotated[Path | None, typer.Option(help="The broker's own folder.")] = None,
    check: Annotated[bool, typer.Option(help="Only say what would change.")] = False,
    gone: Annotated[bool, typer.Option("--remove", help="Leave nginx as it was found.")] = False,
) -> None:
    """Lay the portal's front into nginx. Prints {"changed": [what]}."""
    box = replace(Box(), state=state) if state else Box()
    base = Spec(domain=portal or "", kind="portal", upstream=upstream)
    base = replace(base, certificate=certificate, key=key)
    base = replace(base, challenge_root=challenges) if challenges else base
    specs = [base] if portal else []
    specs += [replace(base, domain=api, kind="api")] if api else []
    try:
        said = asyncio.run(remove(box) if gone else lay(box, specs, check=check))
    except AIError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    typer.echo(json.dumps({"changed": said}))


if __name__ == "__main__":
    typer.run(main)
