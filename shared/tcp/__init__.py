"""TCP connections at both edges, and what they share with the tunnel.

head           what OPEN and ANSWER carry for one, pure
proxy_v2       the PROXY protocol, version 2, pure
client_hello   the names in a TLS ClientHello, pure
edge           what an edge is; plain and tls are the two there are
splice         an edge and a stream, coupled both ways
"""
