"""Keys, certificates, SPIFFE ids, and the TLS contexts made of them."""
