"""Training: a recipe in, checkpoints and metrics out."""
