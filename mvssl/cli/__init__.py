"""The command line: `mvssl VERB`, thin functions over the packages that do the work.

in   the words of the command line
out  an exit code; if it is not 0, also a message on standard error
"""
