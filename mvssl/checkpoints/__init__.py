"""Checkpoints of a run: written completely or not at all, verified when read.

in   a model, an optimizer and the state of a run; or a run folder
out  RUN/checkpoints/step-N; or the newest, the best or a given checkpoint that verifies, and its tensors
"""
