"""The process of a command: signals, standard streams, progress bars, errors of the operating system.

in   signals from outside, streams that may be closed, exceptions
out  a request to stop or to save (`signals`), output that never ends a run (`streams`),
     a `StorageError` that says what to do (`system_errors`)
"""
