"""Releases of a static site through a real nginx: folders, archives, git, and the way back."""

from __future__ import annotations

import io
import os
import shutil
import ssl
import stat
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from nginx_rig import Ground, ground

from base.errors import ConflictError, ForbiddenError, InputError, NotFoundError
from base.verbs import By, Folder, Git, NginxUndo, Nothing, Previous, SiteDeploy, Upload
from provision import tree, unpack
from provision.releases import Releases
from provision.sites import Sites
from provision.spec import Spec
from provision.verbs import nginx_history, nginx_undo, site_deploy

__all__ = ["ground"]


async def served(ground: Ground, domain: str = "one.example") -> Releases:
    root = ground.box.www / domain / "current"
    await Sites(ground.box).apply(Spec(domain=domain, root=root))
    return Releases(ground.box, who="root")


def folder(ground: Ground, says: str, user: str = "u1") -> Folder:
    """A workspace with a built site in it."""
    place = ground.box.root / "workspaces" / user / "main" / "site"
    shutil.rmtree(place, ignore_errors=True)
    (place / "sub").mkdir(parents=True)
    (place / "index.html").write_text(says)
    (place / "sub" / "a b.txt").write_text(says)
    (place / "sub" / "a b.txt").chmod(0o4777)
    (place / ".git").mkdir()
    (place / ".git" / "config").write_text("secret")
    return Folder(path=str(place))


async def test_releases_follow_each_other_and_go_back(ground: Ground) -> None:
    releases = await served(ground)
    assert ground.get("one.example").status_code == 404
    plan = await releases.plan("one.example", folder(ground, "1"))
    assert "3 files and folders" in plan[0]
    assert releases.current("one.example") is None
    made = [await releases.deploy("one.example", folder(ground, str(n))) for n in range(1, 8)]
    assert ground.get("one.example").text == "7"
    assert ground.get("one.example", "/sub/a%20b.txt").text == "7"
    home = ground.box.www / "one.example"
    kept = sorted(path.name for path in (home / "releases").iterdir())
    assert kept == [one.id for one in made[2:]]
    assert not (home / "current" / ".git").exists()
    file = (home / "current" / "sub" / "a b.txt").stat()
    assert (stat.S_IMODE(file.st_mode), file.st_uid) == (0o644, 0)
    assert stat.S_IMODE((home / "current" / "sub").stat().st_mode) == 0o755
    for n in (6, 5):
        assert (await releases.deploy("one.example", Previous())).id == made[n - 1].id
        assert ground.get("one.example").text == str(n)
    await releases.deploy("one.example", folder(ground, "new"))
    await releases.previous("one.example")
    assert ground.get("one.example").text == "5"  # not the one that was rolled back from
    for _ in range(2):
        await releases.previous("one.example")
    assert ground.get("one.example").text == "3"
    with pytest.raises(ConflictError, match="no release before"):
        await releases.previous("one.example")
    print("figure switch_ms", made[-1].switch_ms)


async def test_what_does_not_come_back_is_taken_back(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provision.releases.VERIFY_S", 0.5)
    releases = await served(ground)
    await releases.deploy("one.example", folder(ground, "good"))
    # Somebody has nginx serve that name from elsewhere: what was deployed is not seen.
    file = ground.box.nginx / "ai-infra" / "current" / "sites-available" / "one.example.conf"
    root = f"root {ground.box.www}/one.example/current"
    (ground.box.root / "other").mkdir()
    assert root in file.read_text()
    file.write_text(file.read_text().replace(root, f"root {ground.box.root}/other"))
    ground.reload()
    with pytest.raises(ConflictError, match="what was served before is served again"):
        await releases.deploy("one.example", folder(ground, "bad"))
    assert (ground.box.www / "one.example" / "current" / "index.html").read_text() == "good"
    assert len(list((ground.box.www / "one.example" / "releases").iterdir())) == 1


async def test_whose_site_and_whose_folder(ground: Ground) -> None:
    releases = await served(ground)
    source = folder(ground, "mine")
    with pytest.raises(NotFoundError):
        await releases.deploy("two.example", source)
    await Sites(ground.box).apply(Spec(domain="r.example", kind="redirect", target="x.example"))
    with pytest.raises(ConflictError, match="no files of its own"):
        await releases.deploy("r.example", source)
    with pytest.raises(ForbiddenError):
        await Releases(ground.box, owner="u2").deploy("one.example", source)
    await Releases(ground.box, owner="u1").deploy("one.example", source)
    for path in (
        "/etc",
        str(ground.box.root / "workspaces"),
        source.path + "/../../../../state",
    ):
        with pytest.raises(InputError, match="is not below"):
            await releases.deploy("one.example", Folder(path=path))
    with pytest.raises(NotFoundError):
        await releases.deploy("one.example", Folder(path=source.path + "x"))
    home = ground.box.www / "linked.example"
    (ground.box.root / "elsewhere").mkdir()
    home.symlink_to(ground.box.root / "elsewhere")
    await Sites(ground.box).apply(Spec(domain="linked.example", root=home / "current"))
    with pytest.raises(ConflictError, match="not a plain folder"):
        await releases.deploy("linked.example", source)


async def test_nothing_leads_out_of_a_folder(ground: Ground) -> None:
    releases = await served(ground)
    place = Path(folder(ground, "x").path)

    def link(at: Path) -> None:
        at.symlink_to("/etc/shadow")

    def folder_link(at: Path) -> None:
        at.symlink_to("/etc")

    def pipe(at: Path) -> None:
        os.mkfifo(at)

    def second_name(at: Path) -> None:
        (ground.box.root / "secret").touch()
        os.link(ground.box.root / "secret", at)

    for make in (link, folder_link, pipe, second_name):
        make(place / "odd")
        with pytest.raises(InputError, match="odd"):
            await releases.deploy("one.example", Folder(path=str(place)))
        (place / "odd").unlink()
    (place.parent / "way").symlink_to(place)
    with pytest.raises(InputError, match=r"way .* no plain folder"):
        await releases.deploy("one.example", Folder(path=str(place.parent / "way")))
    assert releases.current("one.example") is None
    assert list((ground.box.www / "one.example" / "releases").iterdir()) == []


def zipped(entries: dict[str, bytes], **modes: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = modes.get(name, stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    return out.getvalue()


def tarred(*entries: tarfile.TarInfo | tuple[str, bytes], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                archive.addfile(info, io.BytesIO(entry[1]))
    return out.getvalue()


def special(name: str, kind: bytes, to: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


PAGE = b"<p>up</p>"
GOOD = {
    "site.zip": zipped({"index.html": PAGE, "a/b.css": b"x", "__MACOSX/._a": b"y"}),
    "nested.zip": zipped({"site/index.html": PAGE}),
    "site.tar.gz": tarred(("./index.html", PAGE), ("./sub/c.js", b"x")),
    "site.tar.xz": tarred(("dist/index.html", PAGE), mode="w:xz"),
    "site.tar": tarred(("index.html", PAGE), mode="w"),
    "index.html": PAGE,
}
BAD = {
    "up.zip": (zipped({"../x": PAGE}), "leads out"),
    "abs.zip": (zipped({"/etc/cron.d/x": PAGE}), "leads out"),
    "win.zip": (zipped({"a\\..\\x": PAGE}), "no name of a file"),
    "link.zip": (zipped({"l": b"/etc/shadow"}, l=stat.S_IFLNK | 0o777), "a link or a device"),
    "twice.tar": (tarred(("a", PAGE), ("a", PAGE), mode="w"), "in it twice"),
    "dir.tar": (tarred(("a/b", PAGE), ("a", PAGE), mode="w"), "twice"),
    "up.tar.gz": (tarred(("a/../../x", PAGE)), "leads out"),
    "abs.tar.gz": (tarred(("/x", PAGE)), "leads out"),
    "sym.tar": (tarred(special("l", tarfile.SYMTYPE, "/etc"), ("l/x", PAGE), mode="w"), "a link"),
    "hard.tar": (tarred(special("h", tarfile.LNKTYPE, "../x"), mode="w"), "a link"),
    "dev.tar": (tarred(special("d", tarfile.CHRTYPE), mode="w"), "a device"),
    "fifo.tar": (tarred(special("f", tarfile.FIFOTYPE), mode="w"), "special file"),
    "cut.tar.gz": (tarred(("index.html", os.urandom(50_000)))[:9_000], "cannot be read"),
    "not.zip": (b"no archive at all", "neither a zip nor a tar"),
    "empty.tar": (tarred(mode="w"), "no file"),
}


async def test_uploads(ground: Ground) -> None:
    releases = await served(ground)
    for name, content in GOOD.items():
        (ground.box.inbox / name).write_bytes(content)
        made = await releases.deploy("one.example", Upload(name=name))
        assert ground.get("one.example").content == PAGE, name
        assert made.source == f"upload {name}"
    last = releases.current("one.example")
    for name, (content, words) in BAD.items():
        (ground.box.inbox / name).write_bytes(content)
        with pytest.raises(InputError, match=words):
            await releases.deploy("one.example", Upload(name=name))
    (ground.box.inbox / "linked.zip").symlink_to("/etc/shadow")
    for name in ("linked.zip", "none.zip"):
        with pytest.raises(NotFoundError):
            await releases.deploy("one.example", Upload(name=name))
    assert releases.current("one.example") == last
    assert not list(ground.box.staging.glob("ai-infra-*-*/x"))


def test_bombs_and_too_many_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(unpack, "TOTAL_MAX_BYTES", 1_000_000)
    monkeypatch.setattr(unpack, "FILES_MAX", 10)
    bomb = {"b": b"\0" * 3_000_000}
    for content in (zipped(bomb), tarred(("b", bomb["b"])), tarred(("b", bomb["b"]), mode="w:xz")):
        with pytest.raises(unpack.Refused, match="larger than"):
            unpack.unpack(io.BytesIO(content), "bomb.zip")
        (tmp_path / "b").unlink()
    many = {f"{n}": b"" for n in range(11)}
    with pytest.raises(unpack.Refused, match="more than 10"):
        unpack.unpack(io.BytesIO(zipped(many)), "many.zip")
    deep = {"/".join("d" * 50): b""}
    with pytest.raises(unpack.Refused, match="too deep"):
        unpack.unpack(io.BytesIO(zipped(deep)), "deep.zip")
    monkeypatch.setattr(tree, "TOTAL_MAX_BYTES", 1_000)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "big").write_bytes(b"x" * 2_000)
    with pytest.raises(InputError, match="at most 1,000 bytes"):
        tree.copy(tmp_path / "src", tmp_path, tmp_path / "out")


def test_the_unpacker_has_no_rights_and_little_memory(tmp_path: Path) -> None:
    """It is nobody before it reads a byte: what is root's alone it can neither read nor write."""
    if os.geteuid() != 0:
        pytest.skip("root alone can become nobody")
    probe = f"""
import os, sys
sys.path.insert(0, {str(Path(unpack.__file__).parent)!r})
import unpack
unpack.confine(65534)
print(os.getresuid(), os.getgroups())
for path in ("/etc/shadow", "/root"):
    print(os.access(path, os.R_OK | os.W_OK))
try:
    bytearray(2_000_000_000)
except MemoryError:
    print("little")
"""
    said = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", probe], capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines() == ["(65534, 65534, 65534) []", "False", "False", "little"]


class GitServer(BaseHTTPRequestHandler):
    """git's own server program behind each request."""

    def __init__(self, folder: Path, *args: Any) -> None:
        self._folder = folder
        super().__init__(*args)

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self._folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        ended = subprocess.run(["git", "http-backend"], env=env, input=body, stdout=-1, check=True)
        head, _, content = ended.stdout.partition(b"\r\n\r\n")
        lines = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(lines.pop("Status", "200").split()[0]))
        for name, value in {**lines, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, *said: object) -> None:
        """Quiet."""


@contextmanager
def repository(ground: Ground) -> Iterator[tuple[str, Path]]:
    """A repository on a local https server: its address and its working tree."""
    work = ground.box.root / "work"
    (work / "site").mkdir(parents=True)
    (work / "site" / "index.html").write_text("from git")
    (work / "README.md").write_text("readme")
    for words in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "."),
        ("-c", "user.name=a", "-c", "user.email=a@b.example", "commit", "--quiet", "-m", "x"),
    ):
        subprocess.run(["git", *words], cwd=work, check=True)
    bare = ground.box.root / "srv" / "repo.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", work, bare], check=True)
    files = ground.certificate("localhost")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(GitServer, bare.parent))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["certificate"], files["key"])
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"https://localhost:{server.server_port}/repo.git", work
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_git(ground: Ground) -> None:
    await served(ground)
    with repository(ground) as (url, work):
        with pytest.raises(InputError, match="localhost is no public host"):
            await Releases(ground.box).deploy("one.example", Git(url=url, folder="site"))
        ca = ground.box.letsencrypt / "live" / "localhost" / "fullchain.pem"
        trusting = replace(ground.box, git_hosts=("localhost",), acme_ca=ca)
        releases = Releases(trusting)
        made = await releases.deploy("one.example", Git(url=url, folder="site"))
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=work, check=True, capture_output=True, text=True
        )
        assert made.source == f"{url} at {head.stdout[:12]}"
        assert ground.get("one.example").text == "from git"
        await releases.deploy("one.example", Git(url=url, ref="main"))
        assert ground.get("one.example", "/README.md").text == "readme"
        for source in (
            Git(url=url, ref="nowhere"),
            Git(url=url, folder="site/../.."),
            Git(url=url.replace("repo", "none")),
            Git(url="https://169.254.169.254/x"),
            Git(url="https://127.0.0.1/x"),
            Git(url="https://localhost/x?y=z"),
        ):
            with pytest.raises((InputError, NotFoundError)):
                await releases.deploy("one.example", source)
        with pytest.raises(NotFoundError):
            await releases.deploy("one.example", Git(url=url, folder="nothere"))
        untrusted = replace(trusting, acme_ca=None)
        with pytest.raises(InputError, match="cannot be fetched"):
            await Releases(untrusted).deploy("one.example", Git(url=url))
    for url in ("file:///etc", "ssh://a/b", "https://user:secret@host.example/x", "ext::sh -c id"):
        with pytest.raises(ValueError, match="pattern"):
            Git(url=url)


async def test_the_archive_of_a_removed_site(ground: Ground) -> None:
    releases = await served(ground)
    home = ground.box.www / "one.example"
    home.mkdir()
    (home / "of-the-owner").write_text("stays")
    await releases.deploy("one.example", folder(ground, "kept"))
    release = releases.current("one.example")
    await Sites(ground.box).remove("one.example")
    path = releases.archive("one.example")
    assert path is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as archive:
        page = archive.extractfile(f"one.example/releases/{release}/index.html")
        assert page is not None
        assert page.read() == b"kept"
    assert [one.name for one in home.iterdir()] == ["of-the-owner"]
    assert releases.archive("one.example") is None


async def test_the_verbs(ground: Ground) -> None:
    await served(ground)
    steps: list[str] = []

    async def tell(step: str) -> None:
        steps.append(step)

    ask = SiteDeploy(domain="one.example", source=folder(ground, "by verb"))
    plan = await site_deploy.VERB.plan(ask, ground.box)
    assert plan[1] == "serve them at one.example instead of nothing"
    by = By(user_id="u1", agent="infra", task_id="t1")
    said = await site_deploy.VERB.run(ask, ground.box, by, tell)
    assert said["who"] == "u1, agent infra, t1"
    assert said["release"] == Releases(ground.box).current("one.example")
    assert ground.get("one.example").text == "by verb"
    assert "fetching a file through nginx" in steps
    with pytest.raises(ForbiddenError):
        await site_deploy.VERB.run(ask, ground.box, By(user_id="u2"), tell)
    history = (await nginx_history.VERB.run(Nothing(), ground.box, by, tell))["changes"]
    assert [change["domain"] for change in history] == ["one.example"]
    undo = NginxUndo(change=history[0]["id"])
    plan = await nginx_undo.VERB.plan(undo, ground.box)
    assert plan[0].startswith("undo apply of one.example")
    assert "-    server_name one.example;" in plan[2]
    done = await nginx_undo.VERB.run(undo, ground.box, by, tell)
    assert done["change"]["state"] == "done"
    assert Sites(ground.box).specs() == []
