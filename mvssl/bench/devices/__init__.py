"""One command that measures on a GPU what no CPU can show.

in   a CUDA device
out  equality of fused and plain paths, speed of the loop, views and losses, and the places where the host waits
"""
