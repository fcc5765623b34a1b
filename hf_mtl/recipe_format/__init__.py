"""How a recipe is written: YAML, values, keys, paths, caps, and what a command line changes."""
