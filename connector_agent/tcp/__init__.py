"""TCP connections out of the tunnel, to `tcp:` targets.

target      what a target is, and what is under way to it
delivery    one connection
metrics     what is counted
service     takes streams from the dispatcher, keeps the table of targets, counts and logs
"""
