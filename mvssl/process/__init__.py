"""The process of a command: signals, standard streams, and errors of the operating system.

in   signals from outside, streams that may be closed, exceptions
out  a request to stop or to save, output that never fails a run, an `MvsslError` that says what to do
"""
