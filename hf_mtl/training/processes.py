"""The end of a run's processes."""

import gc

from torch import distributed


def leave_together() -> None:
    """Wait for the other processes, and end this one's part in their group; to be called when no trainer is left.

    A process that leaves while another still talks to it is aborted. So is one whose interpreter ends before gloo's
    threads have: they end with the group's last owner, which a wrapped model in a cycle of references may be.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
        gc.collect()
