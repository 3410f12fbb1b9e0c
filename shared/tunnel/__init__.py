"""asyncio over the protocol: the message transport, the link that drives the core over it."""
