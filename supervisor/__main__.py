"""`python -m supervisor [watch|up|down|status|services|monitor|redis|postgres] [--json]`.

Without a word it is the supervisor process itself. Exit codes as in `base/program.py`, and
3: `status` found it not running.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

from base import program
from base.errors import AIError, SettingsError
from base.settings import Settings, load

EXIT_NOT_RUNNING = 3
WORDS = ("run", "watch", "up", "down", "status", "services", "monitor", "redis", "postgres")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m supervisor", description=__doc__)
    parser.add_argument("word", nargs="?", default="run", choices=WORDS)
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    asked = parser.parse_args()
    if asked.word == "run":
        from supervisor import loop

        program.run("supervisor", loop.main)
    if asked.word == "watch":
        from supervisor import watch

        program.run("watch", watch.main)
    try:
        settings = load()
        settings.prepare()
        code = _word(asked.word, settings, as_json=asked.json)
    except SettingsError as error:
        code = _complain(error, program.EXIT_SETTINGS)
    except AIError as error:
        code = _complain(error, program.EXIT_DIED)
    except KeyboardInterrupt:
        code = 130
    program.leave(code)


def _word(word: str, settings: Settings, *, as_json: bool) -> int:
    if word == "redis":
        from supervisor import stores

        stores.become_redis(settings)
    if word == "postgres":
        from supervisor import stores

        stores.become_postgres(settings)
    if word == "monitor":
        _become_monitor(settings)
    from supervisor import local

    if word == "up":
        return local.up(settings, as_json=as_json)
    if word == "down":
        return local.down(settings, as_json=as_json)
    return 0 if local.show(settings, as_json=as_json) else EXIT_NOT_RUNNING


def _become_monitor(settings: Settings) -> NoReturn:
    """A process that never loaded the settings is half the size, and this one stays for ever."""
    line = [sys.executable, "-m", "supervisor.monitor", str(settings.run)]
    os.execv(line[0], line)


def _complain(error: AIError, code: int) -> int:
    print(f"ai-infra: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
