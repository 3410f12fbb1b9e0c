"""Whether a target can be reached, found out by this side alone: what a probe does stands in the connector's config.

spec    what a target's probe does, and what it takes for an answer
run     one probe, now: the way that pushes go, without the pushes
"""
