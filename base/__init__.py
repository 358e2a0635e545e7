"""Ground floor: what at least two packages need. Imports nothing of ours from above."""

import gc

#: Loading a program makes a hundred thousand objects, none of them garbage: to look for some
#: every 700, as Python does, is a tenth of a start. `program.run` sets that back.
gc.set_threshold(50_000, 20, 20)
