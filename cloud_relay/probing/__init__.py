"""How targets are, seen from the relay: by probes through the tunnel, and by what becomes of pushes.

doubt    what pushes tell of one target behind one connector: when it is taken out, and for how long
record   one target behind one connector: who exposes it, what its last probe found, what pushes tell
book     all of them; says to the registry which ones pushes should pass over
prober   when each is asked, at a bounded rate; and the asking
view     what a status, a scrape and /readyz show of it
"""
