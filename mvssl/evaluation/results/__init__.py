"""Scores with their errors, records, and tables of them."""
