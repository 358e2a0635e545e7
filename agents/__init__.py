"""One agent a process: the loop, its tools and the sandbox they run in."""
