"""How much each task's loss counts."""
