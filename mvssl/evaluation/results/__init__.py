"""Results of probes: metrics with standard errors, records, tables, and comparisons of runs.

in   scores and labels
out  `Result`s, JSON `Record`s, tables
"""
