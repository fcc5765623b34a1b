"""What a checkpoint is published with."""
