"""Results of probes: metrics with standard errors, records, tables, and comparisons of runs.

in   scores [n, c] and labels of test samples, or values of several draws of labels
out  `Result`: a value with its metric, its standard error and the parts that paired differences need;
     `Record`: a result as JSON, with all that identifies and explains it; tables of records for the terminal

Several runs of one recipe become one column with their mean and standard deviation.
"""
