"""The relay's ports for senders and connectors: accept, look at who comes, hand the socket on untouched.

acceptor    binds an address and accepts
sorting     who gets a connection: by the port alone, or by the server name in its ClientHello
arrival     one connection between accept and being handed on
crowd       who waits at a port, and who has to make way
port        one address, whose sorting a reload replaces
"""

from cloud_relay.ports.port import Port
from cloud_relay.ports.sorting import Destination, NameTable, Sorting

__all__ = ["Destination", "NameTable", "Port", "Sorting"]
