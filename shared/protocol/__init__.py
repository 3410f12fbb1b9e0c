"""The tunnel protocol, sans-I/O: bytes in, events and bytes out."""
