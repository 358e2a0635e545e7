"""Tiny packages, and a package index that serves them and writes down what it was asked for."""

from __future__ import annotations

import contextlib
import http.server
import importlib.metadata
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.utils import canonicalize_name

SCRIPT = "import importlib.metadata\ndef main():\n    print(importlib.metadata.version('{name}'))\n"


def wheel(folder: Path, name: str, version: str, *requires: str) -> Path:
    """A package of that name with a module, a text of its version and a program."""
    module, info = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info"
    told = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{module}/__init__.py": SCRIPT.format(name=name),
        f"{module}/text.txt": version,
        f"{info}/METADATA": told + "".join(f"Requires-Dist: {one}\n" for one in requires),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {module}:main\n",
    }
    return _packed(folder / f"{module}-{version}-py3-none-any.whl", files, f"{info}/RECORD")


def setuptools(folder: Path) -> Path:
    """That of this environment, as a wheel again."""
    found = importlib.metadata.distribution("setuptools")
    info = f"setuptools-{found.version}.dist-info"
    parts = [part for part in found.files or () if ".." not in part.parts]
    files = {
        str(part): Path(str(part.locate())).read_bytes()
        for part in parts
        if part.suffix != ".pyc" and part.name not in {"RECORD", "INSTALLER", "REQUESTED"}
    }
    name = f"setuptools-{found.version}-py3-none-any.whl"
    return _packed(folder / name, files, f"{info}/RECORD")


def _packed(path: Path, files: Mapping[str, str | bytes], record: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as pack:
        for name, text in files.items():
            pack.writestr(name, text)
        pack.writestr(record, "".join(f"{name},,\n" for name in (*files, record)))
    return path


@dataclass(kw_only=True)
class Index:
    """url: for pip. asked: the files that were fetched and the names that were looked up, since the
    last `forget`. stuck: set, it answers nobody.
    """

    folder: Path
    url: str
    asked: list[str] = field(default_factory=list)
    stuck: threading.Event = field(default_factory=threading.Event)
    waits: threading.Event = field(default_factory=threading.Event)

    def forget(self) -> None:
        self.asked.clear()


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Index]:
    """An index of the wheels in this folder."""

    class Said(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            *_, name = self.path.rstrip("/").split("/")
            index.asked.append(name)
            while index.stuck.is_set():
                index.waits.set()
                time.sleep(0.05)
            if name.endswith(".whl"):
                body = (folder / name).read_bytes()
            else:
                of = [one for one in sorted(folder.glob("*.whl")) if _name(one) == name]
                body = "".join(f'<a href="/f/{one.name}">{one.name}</a>' for one in of).encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):  # who asked may be gone
                self.wfile.write(body)

        def log_message(self, format: str, *_: object) -> None:
            """Nobody reads it."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Said)
    index = Index(folder=folder, url=f"http://127.0.0.1:{server.server_port}/simple")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield index
    finally:
        index.stuck.clear()
        server.shutdown()
        thread.join()
        server.server_close()


def _name(path: Path) -> str:
    return canonicalize_name(path.name.partition("-")[0])
