"""What leaves the sandbox: listed addresses alone, whatever they are called, and all of it told."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import socket
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agents import egress, indexes
from agents.hands import Hands, ToolResult
from agents.indexes import Indexes, read
from base.deadline import Deadline
from base.levels import PACKAGE_INDEXES, Levels

pytest_plugins = ["boxed"]

LEVELS = Levels.load()
STANDARD = LEVELS.get("standard")


class Site:
    """A web server on 127.0.0.1; `pages` by path, `asked` what was asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {"/": b"welcome"}
        self.asked: list[str] = []
        site = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                body = site.pages.get(self.path)
                self.send_response(404 if body is None else 200)
                if body and body.startswith(b"<"):
                    self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    one = Site()
    yield one
    one.close()


@contextlib.asynccontextmanager
async def _opened(workspace: Path, user: str | None, *network: str, grants: tuple[str, ...] = ()):  # type: ignore[no-untyped-def]
    level = STANDARD.model_copy(update={"network": network})
    hands = await Hands.open(workspace=workspace, user=user, level=level, grants=grants)
    try:
        yield hands
    finally:
        await hands.close()


async def _shell(hands: Hands, command: str) -> ToolResult:
    return await hands.call("shell", {"command": command}, deadline=Deadline.after(60))


def _through_proxy(host: str, port: int) -> str:
    """A command that asks the proxy for `host` in so many words, and prints what it says."""
    return f"""python3 - <<'END'
import base64, os, socket
from urllib.parse import unquote, urlsplit
proxy = urlsplit(os.environ["HTTP_PROXY"])
who = base64.b64encode(f"{{unquote(proxy.username)}}:{{proxy.password}}".encode()).decode()
s = socket.create_connection(("127.0.0.1", proxy.port), 5)
s.settimeout(10)
lines = ["CONNECT {host}:{port} HTTP/1.1", "Host: x", f"Proxy-Authorization: Basic {{who}}", "", ""]
s.sendall("\\r\\n".join(lines).encode())
print(s.recv(400).decode("utf-8", "replace").splitlines()[0])
END"""


async def test_a_listed_loopback_host_is_reached_and_told_as_foreign(
    workspace: Path, hands_user: str | None, site: Site
) -> None:
    async with _opened(workspace, hands_user, site.address) as hands:
        got = await _shell(hands, f"curl -s http://{site.address}/")
        assert got.text == "exit code 0\nwelcome"
        assert got.untrusted == site.address
        assert got.refused == ()
        quiet = await _shell(hands, "echo nothing")
        assert (quiet.untrusted, quiet.refused) == ("", ())


async def test_a_refused_host_is_told_with_what_to_do(
    workspace: Path, hands_user: str | None, site: Site
) -> None:
    async with _opened(workspace, hands_user) as hands:
        got = await _shell(hands, f"curl -sS --noproxy '' -m 5 http://{site.address}/; "
                           "curl -sSm 5 https://example.com/")  # fmt: skip
    assert site.asked == []
    assert got.refused == (site.address, "example.com:443")
    for address in got.refused:
        assert (
            f"blocked by policy: {address} is not on the list of level standard: "
            "do not retry another way; ask with request_permission" in got.text
        )
    assert got.untrusted == ""


async def test_an_address_can_be_allowed_while_the_task_runs(
    workspace: Path, hands_user: str | None, site: Site
) -> None:
    async with _opened(workspace, hands_user) as hands:
        command = f"curl -s --noproxy '' http://{site.address}/"
        before = await _shell(hands, command)
        assert before.refused == (site.address,)
        await hands.allow(site.address)
        after = await _shell(hands, command)
        assert after.text.endswith("welcome")
        assert after.refused == ()
    async with _opened(workspace, hands_user) as hands:
        again = await _shell(hands, command)
        assert again.refused == (site.address,), "for one task only"


async def test_a_grant_counts_from_the_start(
    workspace: Path, hands_user: str | None, site: Site
) -> None:
    async with _opened(workspace, hands_user, grants=(site.address,)) as hands:
        got = await _shell(hands, f"curl -s http://{site.address}/")
    assert got.text.endswith("welcome")


METADATA = [
    "169.254.169.254", "2852039166", "0xA9FEA9FE", "0251.0376.0251.0376", "169.254.43518",
    "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "169.254.169.254.", "[fd00:ec2::254]",
    "0xa9.0xfe.0xa9.0xfe", "user@169.254.169.254",
    "example.com@169.254.169.254", "１６９.254.169.254",
]  # fmt: skip
LOOPBACK = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]",
    "127.0.0.1.", "localhost", "localhost.", "x.localhost", "0.0.0.0", "0", "[::]", "LOCALHOST",
]  # fmt: skip


@pytest.mark.parametrize("level", ["restricted", "standard", "elevated"])
async def test_no_spelling_of_an_address_gets_through(
    workspace: Path, hands_user: str | None, site: Site, level: str
) -> None:
    opened = await Hands.open(
        workspace=workspace, user=hands_user, level=LEVELS.get(level).model_copy(
            update={"network": ("*:443", f"*:{site.port}", "*:80") if level == "elevated" else ()}
        )
    )  # fmt: skip
    try:
        for host in METADATA:
            got = await _shell(opened, _through_proxy(host, 80))
            assert " 200 " not in got.text, host
            assert got.refused or " 400 " in got.text or "403" in got.text, (host, got.text)
        for host in LOOPBACK:
            got = await _shell(opened, _through_proxy(host, site.port))
            assert " 200 " not in got.text, host
    finally:
        await opened.close()
    assert site.asked == []


async def test_a_port_that_is_not_listed_is_refused(
    workspace: Path, hands_user: str | None, site: Site
) -> None:
    async with _opened(workspace, hands_user, "127.0.0.1:1", "localhost:443") as hands:
        got = await _shell(hands, _through_proxy("127.0.0.1", site.port))
    assert "403" in got.text
    assert got.refused == (site.address,)


async def test_a_listed_name_that_leads_home_is_refused(
    workspace: Path, hands_user: str | None, site: Site
) -> None:
    """The machine's own name is listed, and resolves to an address of this machine."""
    name = socket.gethostname().lower()
    try:
        own = socket.gethostbyname(name)
    except OSError:
        pytest.skip("this machine's name does not resolve")
    async with _opened(workspace, hands_user, f"{name}:{site.port}") as hands:
        got = await _shell(hands, _through_proxy(name, site.port))
    assert " 200 " not in got.text, own
    assert got.refused == (f"{name}:{site.port}",)
    assert "resolved to" in got.text


async def test_without_the_check_of_addresses_the_name_would_lead_home(
    workspace: Path, hands_user: str | None, site: Site
) -> None:
    """The control: the address itself, listed, is reached by the same road."""
    async with _opened(workspace, hands_user, site.address) as hands:
        got = await _shell(hands, _through_proxy("127.0.0.1", site.port))
    assert " 200 " in got.text


async def test_nothing_answers_without_the_proxys_word(
    workspace: Path, hands_user: str | None, site: Site
) -> None:
    """The proxy's port on the host wants the token of its sandbox."""
    async with _opened(workspace, hands_user, site.address) as hands:
        got = await _shell(
            hands, "env -u HTTP_PROXY -u http_proxy -u ALL_PROXY -u all_proxy "
            f"curl -sm 5 -x http://127.0.0.1:3128 -o /dev/null -w '%{{http_code}}' "
            f"http://{site.address}/"
        )  # fmt: skip
    assert got.text.endswith("407")
    assert site.asked == []


def _wheel(name: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(f"{name}.py", "word = 'installed'\n")
        info = f"{name}-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return data.getvalue()


def _package(name: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for path, text in (
            ("package/package.json", json.dumps({"name": name, "version": "1.0.0"})),
            ("package/index.js", "module.exports = 'installed'"),
        ):
            entry = tarfile.TarInfo(path)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return data.getvalue()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Site, Site]]:
    """One server with both kinds of index, and another that keeps the files."""
    front, files = Site(), Site()
    here = f"http://{files.address}"
    for name in ("pip", "ours"):
        link = f'<a href="{here}/{name}-1.0-py3-none-any.whl">{name}</a>'.encode()
        front.pages[f"/simple/{name}/"] = link
        files.pages[f"/{name}-1.0-py3-none-any.whl"] = _wheel(name)
    archive = _package("ours")
    files.pages["/ours-1.0.0.tgz"] = archive
    integrity = f"sha512-{base64.b64encode(hashlib.sha512(archive).digest()).decode()}"
    one = {"name": "ours", "version": "1.0.0",
           "dist": {"tarball": f"{here}/ours-1.0.0.tgz", "integrity": integrity}}  # fmt: skip
    front.pages["/npm/npm/latest"] = json.dumps(one).encode()
    whole = {"name": "ours", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": one}}
    front.pages["/npm/ours"] = json.dumps(whole).encode()
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://person:hush@{front.address}/simple")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "127.0.0.1")
    monkeypatch.setenv("npm_config_registry", f"http://{front.address}/npm/")
    yield front, files
    front.close()
    files.close()


async def test_pip_and_npm_install_from_the_configured_indexes(
    workspace: Path, hands_user: str | None, index: tuple[Site, Site]
) -> None:
    front, files = index
    hands = await Hands.open(workspace=workspace, user=hands_user, level=STANDARD)
    try:
        pip = await _shell(
            hands, "pip3 install -q ours && python3 -c 'import ours; print(ours.word)'"
        )
        npm = await _shell(hands, "npm install --silent ours && node -p 'require(\"ours\")'")
        spelled = await _shell(hands, "env; cat ~/.config/pip/pip.conf ~/.npmrc")
    finally:
        await hands.close()
    assert pip.text.splitlines()[-1] == "installed"
    assert npm.text.splitlines()[-1] == "installed"
    assert (pip.untrusted, npm.untrusted) == ("", ""), "an index is no foreign host"
    assert "hush" not in spelled.text
    assert "/ours-1.0-py3-none-any.whl" in files.asked
    assert "/simple/ours/" in front.asked


def test_what_pip_and_npm_say_becomes_addresses_paths_and_variables(
    index: tuple[Site, Site], tmp_path: Path
) -> None:
    front, files = index
    pip = {
        "index-url": f"http://a:b@{front.address}/simple",
        "extra-index-url": f"file://{tmp_path} https://none.invalid/simple",
        "find-links": f"{tmp_path}/absent {tmp_path}",
    }
    found, whole = read(pip, {"registry": f"http://{front.address}/npm/"})
    assert not whole, "one index did not answer"
    assert set(found.addresses) == {front.address, files.address, "none.invalid:443"}
    assert found.paths == (str(tmp_path.resolve()),)
    assert found.environment["PIP_INDEX_URL"] == f"http://{front.address}/simple"
    assert "a:b" not in json.dumps(dict(found.environment))
    alone, whole = read({"index-url": f"http://{front.address}/simple", "no-index": "1"}, {})
    assert (alone.addresses, whole) == ((), True)
    assert alone.environment["PIP_NO_INDEX"] == "1"


def test_the_present_folder_has_no_say_in_the_indexes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__main__.py").write_text("print(\"global.index-url='http://evil'\")")
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / ".npmrc").write_text("registry=http://evil/\n")
    monkeypatch.chdir(tmp_path)
    assert "evil" not in f"{indexes._pip()} {indexes._npm()}"


async def test_a_level_without_package_indexes_does_not_look_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agents.indexes._of", None)
    level = STANDARD.model_copy(update={"network": ("github.com:443",)})
    assert await Indexes.of(None, level) == Indexes()  # type: ignore[arg-type]


def test_rules_are_data() -> None:
    level = STANDARD.model_copy(update={"network": ("a.example:443", PACKAGE_INDEXES)})
    assert egress.rules(level, ("b.example:8443",), ("index.example:443",)) == [
        {"address": "index.example:443", "index": True},
        {"address": "a.example:443", "index": False},
        {"address": "b.example:8443", "index": False},
    ]
    assert egress.rules(STANDARD.model_copy(update={"network": ()}), (), ("x:1",)) == []
    assert egress.open_ports(LEVELS.get("elevated"))
    assert not egress.open_ports(STANDARD)


RULES: list[tuple[list[str], str, int, bool]] = [
    (["github.com:443"], "github.com", 443, True),
    (["github.com:443"], "GitHub.com.", 443, True),
    (["github.com:443"], "github.com", 80, False),
    (["github.com:443"], "evil-github.com", 443, False),
    (["github.com:443"], "github.com.evil.example", 443, False),
    (["*.example.org:443"], "a.b.example.org", 443, True),
    (["*.example.org:443"], "example.org", 443, False),
    (["*.example.org:443"], "badexample.org", 443, False),
    (["*:443"], "anything.example", 443, True),
    (["*:443"], "10.0.0.1", 443, False),
    (["*:443"], "167772161", 443, False),
    (["*:443"], "localhost", 443, False),
    (["*:443"], "[2001:db8::1]", 443, False),
    (["127.0.0.1:8080"], "127.0.0.1", 8080, True),
    (["127.0.0.1:8080"], "2130706433", 8080, True),
    (["127.0.0.1:8080"], "localhost", 8080, False),
    (["[::1]:8080"], "[0:0::1]", 8080, True),
    (["127.0.0.1:8080"], "[::ffff:7f00:1]", 8080, True),
    (["*:443"], "a@b.example", 443, False),
    (["*:443"], "", 443, False),
    (["*:443"], "a b", 443, False),
    (["*.127.0.0.1:80"], "x.127.0.0.1", 80, False),
]


def test_the_drivers_rules(driver: Callable[[object], object]) -> None:
    assert driver(RULES) == [allowed for *_, allowed in RULES]


@pytest.fixture
def driver(hands_user: str | None) -> Callable[[object], object]:
    """Ask the driver's own functions, by node."""
    import subprocess

    from agents import runtime_install, sandbox

    found = runtime_install.find(sandbox.account(hands_user))
    program = f"""
        const {{ canonical, ruleFor, ruleOf }} = await import("{found.code}/driver.mjs")
        const cases = JSON.parse(process.argv[1])
        console.log(JSON.stringify(cases.map(([rules, host, port]) => {{
            const name = canonical(host)
            const given = rules.map((one) => ruleOf(one)).filter(Boolean)
            return Boolean(name && ruleFor(given, name, port))
        }})))
    """

    def ask(cases: object) -> object:
        node = str(found.node / "bin/node")
        told = subprocess.run(
            [node, "--input-type=module", "-e", program, json.dumps(cases)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert told.returncode == 0, told.stderr
        return json.loads(told.stdout)

    return ask
