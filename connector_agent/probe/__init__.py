"""Whether a target can be reached, found out by this side alone: what a probe does stands in the connector's config.

spec      what a target's probe does, and what it takes for an answer
run       one probe, now: the way that pushes go, without the pushes
resolver  names for it, apart from those of pushes
service   answers relays that ask, from a result that is young enough, or else by a probe
"""
