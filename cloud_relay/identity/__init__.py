"""Who may be a connector of this relay: the relay's own CA, join tokens, renewal, revocation, roll-over.

events    what happened: an append-only list, the audit trail and the one truth
book      what counts now, folded from the events; pure
store     the list on disk, appended to by compare-and-set
keys      the CA's private keys on disk
registrar decides, appends, applies
"""
