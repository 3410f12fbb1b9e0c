"""The tunnel protocol, sans-I/O: it is fed messages and the time, and yields messages and calls.

    frames       the wire: eight bytes of header, and the kinds of frame
    hello        what the two sides tell each other first
    stream       one push inside a tunnel: two halves, a table of states
    credit       how much may be under way: per stream and per tunnel
    stalls       how often and how long what could be sent waits for credit
    outbox       what goes into the next message, chosen as late as possible
    liveness     when to ask, when to doubt, when to give up
    clock        the relay's clock as the connector sees it
    budget       the process's memory, and who has to go when it is spent
    inbound      what each frame of a peer does
    renewal      likewise, the frames by which certificates and roots change
    ending       how the tunnel, and streams in it, end
    connection   the two ends of a tunnel, put together from the above

Nothing in here imports asyncio, socket, ssl, time or logging; whoever drives it passes `now` (monotonic seconds).
"""

from shared.protocol.budget import MemoryBudget
from shared.protocol.connection import Connection
from shared.protocol.driver import ConnectionHandler, Role, State
from shared.protocol.hello import Hello
from shared.protocol.settings import Settings
from shared.protocol.stalls import StallCounts
from shared.protocol.stream import Stream, StreamEnd, StreamHandler

__all__ = [
    "Connection",
    "ConnectionHandler",
    "Hello",
    "MemoryBudget",
    "Role",
    "Settings",
    "StallCounts",
    "State",
    "Stream",
    "StreamEnd",
    "StreamHandler",
]
