"""Results of probes: metrics with standard errors, records, tables, and runs side by side.

in   scores and labels
out  `Result`s, JSON `Record`s, tables
"""
