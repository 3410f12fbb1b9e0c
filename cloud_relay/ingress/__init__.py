"""The relay's HTTP/1.1 ingress: senders come in here, and their answers go out.

    listener     sockets, TLS and the caps on connections
    connection   one sender's connection: heads, bodies, keep-alive, pipelining, time-outs
    closing      how a connection ends: lingering, cut off, or at once
    push         one push: route, authenticate, admit, choose, forward, try again
    answer       an answer's framing towards the sender
    context      what a push takes from outside, in one snapshot
    retry        how often pushes may be tried again
    access       the access line and the request id

Everything is a callback on one event loop. A push costs no task, no future and no timer.
"""

from cloud_relay.ingress.context import Ingress, IngressContext, IngressSettings
from cloud_relay.ingress.listener import IngressListener

__all__ = ["Ingress", "IngressContext", "IngressListener", "IngressSettings"]
