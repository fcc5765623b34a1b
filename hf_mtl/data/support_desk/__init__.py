"""A small synthetic data set: the messages of an online shop's support desk, as four tasks."""
