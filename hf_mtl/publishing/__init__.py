"""The files beside a checkpoint's weights when it is published."""
