"""The connections to targets.

connect      a name becomes checked addresses, one of them a connection
answer       what a target sends, read strictly: heads, bodies, interim answers
connection   one connection to a target: one push at a time, its timer, its back-pressure
line         the pushes that wait for a connection, in turn sender by sender
pool         the connections of one target, and the pushes that wait for one
"""
