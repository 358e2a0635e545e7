"""Ground floor: what at least two packages need. Imports nothing of ours from above."""
