"""Backups by restic: made, listed, checked, restored, and proved by a drill.

rules ─▶ create ─▶ staging (keeper's copy, dump, manifest) ─▶ restic
         restore ◀─ restic;  running (stop, start), database (load, swap), moves (keep aside)
         drill: restore into a scratch installation, and a task there
"""
