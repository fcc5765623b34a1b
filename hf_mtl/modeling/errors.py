"""The one exception that means: the input has to change, and the message says how."""


class InputError(ValueError):
    """Raised for input that cannot be used; the message says what was given, what was expected and what to type."""


class LabelError(InputError, IndexError):
    """Raised for a label that its task does not have; plain models raise `IndexError` for one past their classes."""


class CheckpointError(InputError, RuntimeError):
    """Raised for a checkpoint that cannot be read or lacks tensors; Transformers raises `RuntimeError` for most."""
