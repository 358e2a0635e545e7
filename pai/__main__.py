"""`python -m pai`: the keeper of memory."""

from __future__ import annotations

from base import program


def main() -> None:
    from pai import keeper

    program.run("memory", keeper.main)


if __name__ == "__main__":
    main()
