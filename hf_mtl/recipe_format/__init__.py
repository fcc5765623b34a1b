"""The written form of a recipe: YAML, values, keys, paths, caps, and what a command line changes."""
