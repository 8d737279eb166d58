"""The command line: `mvssl VERB`, thin functions over the packages that do the work.

in   the words of the command line
out  an exit code, and a sentence on standard error where it is not 0
"""
