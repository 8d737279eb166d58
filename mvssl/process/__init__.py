"""What surrounds a command: signals, standard streams, and errors of the operating system."""
