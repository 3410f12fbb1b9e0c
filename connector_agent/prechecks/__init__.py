"""`connector-agent check`: everything between this connector and its work, tried before a push depends on it.

identity    what this connector shows, whom it trusts, and until when
relay       the ladder to one relay: DNS, proxy, TCP, TLS, chain, interception, admission, clock
target      each target: files, DNS, networks, connection, TLS, rules
push        how one push would be judged
run         all of it together

Nothing is changed anywhere, and a connector that runs is not disturbed: no HELLO is sent, so no session is made.
"""

from connector_agent.prechecks.push import Asked, judge_push
from connector_agent.prechecks.run import run_prechecks

__all__ = ["Asked", "judge_push", "run_prechecks"]
