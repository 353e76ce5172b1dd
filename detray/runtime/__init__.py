"""The driver for real processes: service, workers, shared memory, sockets."""
