"""Looking at a run and at a model, from above both."""
