"""ripgrep: how agents search files."""

from __future__ import annotations

from portal.checks import program

CHECK = program.check("ripgrep", "rg", "--version", "ripgrep")
