"""HTTP/1.1 heads and bodies on both edges, as pure functions."""
