"""The root broker: typed verbs over a Unix socket, one at a time, each with a dry run."""
