"""A relay process hands over to the next one, and no push is lost: docs/operations.md, "Upgrades", tells it whole.

passing      what the old process gives the new one at its start: sockets, and a channel to talk over
successor    the new process, as the old one sees it
steps        how the old process gives one thing after the other
leaving      the old process: hands over, serves what it has, and ends; or takes everything back
predecessor  the old process, as the new one sees it
arriving     the new process: looks whether it can, takes one thing after the other, and serves

    leaving                                            arriving
       │── starts it, with all listening sockets ──────────▶│ reads its config, tries all that can be tried
       │◀────────────────────────────── "prepared" ─────────│
       │   lets go of state, control, tunnel ports          │
       │── "take-state" ───────────────────────────────────▶│ takes them
       │◀────────────────────────────── "tunnels-open" ─────│
       │   asks connectors for new tunnels                  │ they come here
       │◀────────────────────────────── "missing": none ────│
       │── "take-ingress", quotas ─────────────────────────▶│ accepts senders
       │◀────────────────────────────── "serving" ──────────│
       │── "named" ────────────────────────────────────────▶│ tells the service manager how it is
       │   serves its connections, drains its tunnels, ends │

Until it ends, the old process keeps its copies of the sockets: when the new one dies, it takes everything back. When
the old one dies, the new one goes on with what it was given.
"""
