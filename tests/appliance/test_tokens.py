"""Who signs for whom on the appliance: the portal's account, and the agents', which says less."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from base import modes
from base.errors import ForbiddenError, SettingsError, UnauthenticatedError
from base.settings import OWNER_EMAIL, Settings
from base.store import Store
from portal import auth
from portal.auth import ADMIN_ID, Auth
from portal.scopes import SESSION, allow
from tests.provision.rig import two_users

pytestmark = two_users
#: Who plays the portal's account, and who the agents'; both have the group of the keys.
PORTAL, AGENTS = pwd.getpwnam("daemon").pw_uid, pwd.getpwnam("nobody").pw_uid
KEYS = pwd.getpwnam("nobody").pw_gid


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A home with the appliance's modes."""
    monkeypatch.setattr(modes, "SHARED", True)
    monkeypatch.setattr(modes, "FILE", 0o640)
    home = Path(tempfile.mkdtemp(prefix="ai-k-", dir="/tmp"))
    home.chmod(0o755)
    made = Settings(home=home)
    made.secrets.mkdir()
    os.chown(made.secrets, 0, KEYS)
    made.secrets.chmod(0o2770)
    yield made
    shutil.rmtree(home)


def as_user(uid: int, run: Callable[[], Any]) -> Any:
    """What `run` gives in a process of that account; a fault as its words."""
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        said: Any = None
        try:
            os.setgroups([KEYS])
            os.setgid(KEYS)
            os.setuid(uid)
            said = run()
        except (OSError, SettingsError) as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(theirs, json.dumps(said).encode())
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text)


def secret(settings: Settings) -> str:
    return auth.secret(settings).decode()


async def test_the_agents_account_is_no_admin_at_the_portal(
    settings: Settings, postgres_dsn: str
) -> None:
    as_user(PORTAL, lambda: secret(settings) and (auth.agents_secret(settings) or b"").decode())
    store = await Store.open(postgres_dsn)
    try:
        await store.migrate()
        await store.execute(
            "INSERT INTO users (id, email, role) VALUES ($1, $2, 'admin')", ADMIN_ID, OWNER_EMAIL
        )
        door = Auth(settings, store, None, None)  # type: ignore[arg-type]
        owner = await door.by_token(as_user(PORTAL, lambda: auth.local_token(settings)))
        assert (owner.admin, owner.local, owner.scopes) == (True, True, None)
        assert "PermissionError" in as_user(AGENTS, lambda: secret(settings))
        agents = await door.by_token(as_user(AGENTS, lambda: auth.local_token(settings)))
        assert (agents.admin, agents.local) == (False, False)
        allow(agents, "agents:read")
        for scope in ("admin", "approvals:write", SESSION):
            with pytest.raises(ForbiddenError):
                allow(agents, scope)
        key = as_user(AGENTS, (auth.agents_secret(settings) or b"").decode)
        for claims in ({"sub": owner.user_id, "sid": ADMIN_ID}, {"sub": store_id(), "local": True}):
            forged = jwt.encode({"exp": 4_000_000_000, **claims}, key, "HS256")
            with pytest.raises(UnauthenticatedError):
                await door.by_token(forged)
    finally:
        await store.close()


def store_id() -> str:
    return "00000000-0000-0000-0000-000000000001"


def test_a_planted_secret_is_refused(settings: Settings) -> None:
    """The agents' account may write in the folder, where only the sticky bit says that it cannot
    take another's place: without it the portal stops rather than believes.
    """
    mine = as_user(PORTAL, lambda: secret(settings))
    assert as_user(PORTAL, lambda: secret(settings)) == mine
    path = settings.secrets / "jwt-secret"

    def planted() -> None:
        path.unlink()
        path.write_text("0" * 64)
        path.chmod(0o600)

    settings.secrets.chmod(0o3770)
    assert "not permitted" in as_user(AGENTS, planted)
    assert as_user(PORTAL, lambda: secret(settings)) == mine
    settings.secrets.chmod(0o2770)
    as_user(AGENTS, planted)
    assert "Error" in as_user(PORTAL, lambda: secret(settings))

    def shared() -> None:
        path.unlink()
        (settings.secrets / "webhook-key").replace(path)

    as_user(PORTAL, lambda: (settings.secrets / "webhook-key").write_text("1" * 64))
    as_user(AGENTS, shared)
    assert "not the portal's alone" in as_user(PORTAL, lambda: secret(settings))
