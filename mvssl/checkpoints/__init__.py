"""Checkpoints of a run: written whole or not at all, verified when read."""
