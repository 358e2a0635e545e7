"""`python -m workers rehearsal`: run one worker until SIGTERM or SIGINT."""

from __future__ import annotations

import sys

from base import program


def main() -> None:
    match sys.argv[1:]:
        case ["rehearsal"]:
            from workers import rehearsal

            program.run("rehearsal", rehearsal.main)
        case _:
            sys.exit("usage: python -m workers rehearsal")


if __name__ == "__main__":
    main()
