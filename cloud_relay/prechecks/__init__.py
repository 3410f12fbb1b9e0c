"""`cloud-relay check --live`: everything around the relay that a push or a connector will need, looked at now.

host          the process, its state directory, its disk, its descriptors, its clock
certificates  days left, and whether those of the ingress are for the hosts of the routes
doors         listeners: bound, and answering
names         the advertised names: DNS, TCP, and the relay's own certificate at the other end
tenants       routes: a connector that exposes the target; senders: whether their credentials can be judged
run           all of it together

What only the running relay knows comes over its control socket; everything else is tried from here, and works without.
"""

from cloud_relay.prechecks.run import run_prechecks

__all__ = ["run_prechecks"]
