"""The view of an image and its operations: crop, flip and warp, colour, blur and noise.

in   images of a batch, [n, c, h, w], uint8 or float32, and the random draws of its samples
out  the view, float32 [n, c, h, w] at the view's size
"""
