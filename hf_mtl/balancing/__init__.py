"""Weights of the tasks' losses and gradients."""
