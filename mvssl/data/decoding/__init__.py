"""Bytes of one field to an array."""
