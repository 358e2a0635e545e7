"""tmux: the agents' windows."""

from __future__ import annotations

from portal.checks import program

CHECK = program.check("tmux", "tmux", "-V", "tmux")
