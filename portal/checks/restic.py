"""restic: what keeps the backups."""

from __future__ import annotations

from portal.checks import program

CHECK = program.check("restic", "restic", "version", "restic")
