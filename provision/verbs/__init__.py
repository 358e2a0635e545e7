"""One file a verb; each has a `VERB`, which `provision.registry` finds by its name."""
