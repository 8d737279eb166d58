"""Checkpoints of a run: written completely or not at all, verified when read.

in   a model, an optimizer and the state of a run; or a run folder
out  a folder RUN/checkpoints/step-N (`store.save_checkpoint`);
     or the newest, the best or a given checkpoint that verifies (`store`), and its tensors (`reading`)
"""
