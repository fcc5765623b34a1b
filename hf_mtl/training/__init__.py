"""A thin Trainer: mixtures in, per-task losses and scores out."""
