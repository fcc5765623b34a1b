"""The programs behind `hf-mtl`: each has `build_parser` and `main`."""
