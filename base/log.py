"""Logs: one logfmt line an event, lower-case past tense, to the process's own file.

Keys in use: task_id agent phase stream duration_ms tokens cost_usd. Never prompt text above
debug, never secrets: each value and the finished line pass `redact`.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import cast

from base.lean import without
from base.redact import redact
from base.terminal import neutral

with without("rich"):  # what it colours tracebacks on a console with: 3.5 MB
    import structlog

#: Their info lines say nothing to us; debug lines of botocore and authlib hold secrets.
NOISY = (
    "httpx", "httpx2", "httpcore", "httpcore2", "anthropic", "asyncio", "boto3", "botocore",
    "urllib3", "authlib", "cloudflare", "github",
)  # fmt: skip


def start(process: str, folder: Path | None, level: str = "info") -> None:
    """Send every log line of this process to `folder/process.log`, or stderr if None.

    Safe to call twice; the last call wins. The file is opened for append, mode 0640.
    """
    stream = sys.stderr
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{process}.log"
        path.touch(mode=0o640, exist_ok=True)
        stream = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
    render = structlog.processors.LogfmtRenderer(
        key_order=["timestamp", "level", "event"], drop_missing=True
    )
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redacted,
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                render,
                lambda _logger, _method, line: neutral(redact(str(line))),
            ],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    if folder is not None and _journal():
        told = logging.StreamHandler(sys.stderr)
        told.setFormatter(handler.formatter)
        root.addHandler(told)
    root.setLevel(level.upper())
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _journal() -> bool:
    """Whether stderr leads to systemd's journal, which then has every line too."""
    try:
        there = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{there.st_dev}:{there.st_ino}"


def _redacted(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Before rendering, which would escape what is in a value."""
    return {key: redact(value) if isinstance(value, str) else value for key, value in event.items()}


def get(name: str) -> structlog.stdlib.BoundLogger:
    """A logger; bind context with `.bind(task_id=...)`."""
    return cast("structlog.stdlib.BoundLogger", structlog.get_logger(name))
