"""The pages: login and chat. `install` puts them on the application."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from base.settings import Settings

STATIC = Path(__file__).resolve().parent.parent / "static"


def install(app: FastAPI, settings: Settings) -> None:
    """Mount NiceGUI under everything else. Once a process: NiceGUI keeps its state in modules."""
    # Read when nicegui is imported; its default is a folder in the current directory.
    os.environ.setdefault("NICEGUI_STORAGE_PATH", str(settings.run / "nicegui"))
    from nicegui import ui

    from portal.pages import (
        agents,
        approvals,
        audit,
        backups,
        chat,
        domains,
        events,
        health,
        login,
        memory,
        task,
        tasks,
        usage,
    )
    from portal.pages import settings as configured

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    login.install(app)
    chat.install(app)
    events.install(app)
    approvals.install(app)
    memory.install(app)
    audit.install(app)
    usage.install(app)
    domains.install(app)
    agents.install(app)
    tasks.install(app)
    task.install(app)
    configured.install(app)
    health.install(app)
    backups.install(app)
    ui.run_with(
        app,
        title="AI Infrastructure",
        favicon=STATIC / "favicon.svg",
        dark=None,
        tailwind=False,
        binding_refresh_interval=None,
        reconnect_timeout=10.0,
        show_welcome_message=False,
    )
