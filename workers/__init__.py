"""Local workers, each a process of its own: so far the rehearsal model."""
