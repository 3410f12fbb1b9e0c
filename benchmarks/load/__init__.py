"""Load generators, each a process of its own: wrk for closed loops, our own for open ones and for bulk."""
