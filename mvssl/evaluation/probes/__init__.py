"""Probes: what a frozen representation tells about labels, other views and itself."""
