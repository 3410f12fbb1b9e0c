"""What both sides of Qanat speak: the protocol, the tunnel, HTTP's edges, identity. Imports neither side."""
