"""Work spread over processes and devices: collectives, batch norm over processes, and the memory of a device."""
