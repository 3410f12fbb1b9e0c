"""`connector-agent check`: everything between this connector and its work, tried before a push depends on it.

identity    what this connector shows, whom it trusts, and until when
route       the way to one relay: DNS, proxy, TCP
relay       the whole ladder: that, TLS, chain, interception, admission, clock
admission   whether a relay takes this connector, asked without becoming a session
target      each target: files, DNS, networks, connection, TLS, rules
push        how one push would be judged
run         all of it together

Nothing is changed anywhere, and a connector that runs is not disturbed: no HELLO is sent, so no session is made.
"""

from connector_agent.prechecks.push import Asked, judge_push
from connector_agent.prechecks.run import run_prechecks

__all__ = ["Asked", "judge_push", "run_prechecks"]
