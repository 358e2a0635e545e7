"""`ai-infra domains`: the server's own sites, by their names."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from base.terminal import neutral
from portal.cli_client import EXIT_USAGE, call, show, stop

app = typer.Typer(
    no_args_is_help=True,
    help="The server's sites: list, add, remove, enable, disable, deploy, renew, undo, history.",
)
#: A certificate, a large release and the turns before it.
PATIENCE_S = 3_600.0
FILES_MAX = 50_000

AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Name = Annotated[str, typer.Argument(help="The domain, such as example.org.")]


@app.command("list")
def listed(as_json: AsJson = False) -> None:
    """Every site with its certificate's days."""
    page = call("GET", "/api/domains", patience_s=120)
    rows = [
        one | {
            "days": "none" if one["days_left"] is None else one["days_left"],
            "to": one["upstream"] or one["target"] or one["release"] or "",
            "problem": one["problem"] or "",
        }
        for one in page["domains"]
    ]  # fmt: skip
    columns = (
        ("domain_name", "DOMAIN"), ("status", "STATE"), ("kind", "KIND"), ("days", "CERT DAYS"),
        ("to", "SERVES"), ("problem", "PROBLEM"),
    )  # fmt: skip
    show(page if as_json else rows, as_json, columns)


@app.command()
def add(
    name: Name,
    proxy: Annotated[
        str | None, typer.Option(help="Pass everything on to this program: http://127.0.0.1:PORT.")
    ] = None,
    redirect: Annotated[str | None, typer.Option(help="Send everything on to this domain.")] = None,
    subdomain: Annotated[
        list[str] | None, typer.Option(help="Serve this name in front, too, such as www.")
    ] = None,
    tls: Annotated[bool, typer.Option("--tls/--no-tls", help="With a certificate.")] = True,
    dns: Annotated[bool, typer.Option("--dns", help="Prove the domain by DNS-01.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Serve a domain: of files (then deploy), of a program, or sent on to another."""
    if proxy is not None and redirect is not None:
        stop("give --proxy or --redirect, not both", EXIT_USAGE)
    kind = "proxy" if proxy is not None else "redirect" if redirect is not None else "static"
    body = {
        "domain_name": name,
        "kind": kind,
        "upstream": proxy,
        "target": redirect,
        "subdomains": subdomain or [],
        "setup_ssl": tls,
        "challenge": "dns-01" if dns else "http-01",
    }
    if dry_run:
        return planned(call("POST", "/api/domains/plan", body=body, patience_s=120), as_json)
    found = call("POST", "/api/domains", body=body, patience_s=PATIENCE_S)
    said = f"{name} is served" + ("" if kind != "static" else "; now: ai-infra domains deploy")
    return show(found, True) if as_json else typer.echo(neutral(said))


@app.command()
def remove(
    name: Name,
    revoke: Annotated[bool, typer.Option("--revoke", help="Revoke the certificate, too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Serve it no more; its files are archived."""
    if dry_run:
        return _plan("domain.remove", {"domain": name, "revoke": revoke}, as_json)
    found = find(name)
    if not yes:
        typer.confirm(f"Remove {found['domain_name']} and archive its files?", abort=True)
    call("DELETE", f"/api/domains/{found['id']}", params={"revoke": revoke}, patience_s=PATIENCE_S)
    return show({"removed": name}, True) if as_json else typer.echo(neutral(f"{name} removed"))


@app.command()
def enable(name: Name, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Serve it again."""
    _switch(name, True, dry_run, as_json)


@app.command()
def disable(name: Name, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Do not serve it for now; files and certificate stay."""
    _switch(name, False, dry_run, as_json)


@app.command()
def deploy(
    name: Name,
    path: Annotated[
        Path | None, typer.Argument(help="A folder, a file, or a .zip, .tar, .tar.gz.")
    ] = None,
    git: Annotated[str | None, typer.Option(help="Instead: a repository, https://….")] = None,
    ref: Annotated[str | None, typer.Option(help="With --git: a branch, tag or commit.")] = None,
    folder: Annotated[str | None, typer.Option(help="With --git: this folder of it.")] = None,
    previous: Annotated[
        bool, typer.Option("--previous", help="Instead: the release before the present one.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """A new release of a static site; the one before is kept."""
    if [path is not None, git is not None, previous].count(True) != 1:
        stop("say what to deploy: PATH, --git URL or --previous", EXIT_USAGE)
    source: dict[str, Any] | None = {"kind": "previous"} if previous else None
    if git is not None:
        source = {"kind": "git", "url": git, "ref": ref, "folder": folder}
    if source is not None:
        request = {"domain": name, "source": source}
        if dry_run:
            return _plan("site.deploy", request, as_json)
        said = call("POST", "/api/broker/site.deploy", body=request, patience_s=PATIENCE_S)
        return show(said, True) if as_json else typer.echo(neutral(f"{name} has a new release"))
    assert path is not None
    if not path.exists():
        stop(f"there is no {path}", EXIT_USAGE)
    if dry_run:
        plan = [f"send {path}", f"make a new release of {name} of it, and switch to it"]
        return planned({"plan": plan}, as_json)
    found = find(name)
    with tempfile.TemporaryFile() as packed:
        file: Any = packed
        if path.is_dir():
            _pack(path, packed)
        else:
            file = path.open("rb")
        sent = path.name if path.is_file() else "site.tar.gz"
        with file:
            said = call(
                "POST",
                f"/api/domains/{found['id']}/deploy",
                files=[("files", (sent, file))],
                patience_s=PATIENCE_S,
            )
    return show(said, True) if as_json else typer.echo(neutral(f"{name} has a new release"))


@app.command()
def renew(
    name: Annotated[str | None, typer.Argument(help="Only this one's certificate.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Also when it is not due.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Renew the certificates that are due."""
    request = {"domain": name, "force": force}
    if dry_run:
        return _plan("cert.renew", request, as_json)
    said = call("POST", "/api/broker/cert.renew", body=request, patience_s=PATIENCE_S)
    return show(said, True) if as_json else typer.echo("what was due is renewed")


@app.command()
def history(
    limit: Annotated[int, typer.Option(min=1, max=1_000)] = 20,
    diff: Annotated[bool, typer.Option("--diff", help="With what was changed.")] = False,
    as_json: AsJson = False,
) -> None:
    """What was changed at the web server, newest first."""
    changes = call("GET", "/api/domains/history", patience_s=120)["changes"][:limit]
    if as_json or not diff:
        columns = (
            ("id", "CHANGE"), ("at", "WHEN"), ("verb", "WHAT"), ("domain", "DOMAIN"),
            ("who", "BY"), ("state", "STATE"),
        )  # fmt: skip
        return show({"changes": changes} if as_json else changes, as_json, columns)
    for one in changes:
        typer.echo(neutral(f"{one['id']}  {one['verb']} {one['domain']}\n{one['diff']}\n"))
    return None


@app.command()
def undo(
    change: Annotated[str | None, typer.Argument(help="Default: the last one.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Have the web server as it was before a change."""
    if dry_run:
        return _plan("nginx.undo", {"change": change}, as_json)
    said = call("POST", "/api/domains/undo", body={"change": change}, patience_s=PATIENCE_S)
    return show(said, True) if as_json else typer.echo("taken back")


def find(name: str) -> dict[str, Any]:
    """The domain of that name, or exit 2."""
    known = call("GET", "/api/domains", patience_s=120)["domains"]
    wanted = name.lower().rstrip(".")
    found = next((one for one in known if one["domain_name"] == wanted), None)
    if found is None:
        names = ", ".join(one["domain_name"] for one in known) or "none"
        stop(f"no domain {name}; there are: {names}", EXIT_USAGE)
    return dict(found)


def planned(answer: dict[str, Any], as_json: bool) -> None:
    """The steps of a dry run."""
    if as_json:
        return show({"plan": answer["plan"]}, True)
    for number, step in enumerate(answer["plan"], 1):
        typer.echo(neutral(f"{number}. {step}"))
    return None


def _plan(verb: str, request: dict[str, Any], as_json: bool) -> None:
    answer = call(
        "POST", f"/api/broker/{verb}", body=request, params={"dry_run": True}, patience_s=120
    )
    planned(answer, as_json)


def _switch(name: str, enabled: bool, dry_run: bool, as_json: bool) -> None:
    if dry_run:
        return _plan("domain.enable" if enabled else "domain.disable", {"domain": name}, as_json)
    path = f"/api/domains/{find(name)['id']}"
    found = call("PATCH", path, body={"enabled": enabled}, patience_s=PATIENCE_S)
    return show(found, True) if as_json else typer.echo(neutral(f"{name} {found['status']}"))


def _pack(folder: Path, out: Any) -> None:
    """The folder's plain files and folders; links are left out, what hides is taken along."""
    count = 0

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        nonlocal count
        count += 1
        if count > FILES_MAX:
            stop(f"{folder} has more than {FILES_MAX} files", EXIT_USAGE)
        return entry if entry.isfile() or entry.isdir() else None

    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for one in sorted(folder.iterdir()):
            archive.add(one, one.name, filter=plain)
    out.seek(0)
