"""The relay's side of TCP routes: from an accepted socket to a stream in a tunnel.

routes     what a route resolves to, and what of it outlives a reload
metrics    what is counted
push       one connection
context    what they all share
entrance   takes sockets that a port hands on
"""

from cloud_relay.tcp.context import TcpContext
from cloud_relay.tcp.entrance import TcpEntrance
from cloud_relay.tcp.metrics import TcpMetrics, TcpRouteMetrics
from cloud_relay.tcp.routes import TcpRoute, TcpRouteState

__all__ = ["TcpContext", "TcpEntrance", "TcpMetrics", "TcpRoute", "TcpRouteMetrics", "TcpRouteState"]
