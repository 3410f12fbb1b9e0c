"""The connector's identity, where the relay is the CA: it joins once, and looks after itself from then on.

store     what is on disk: key and certificate in one file, the roots, keys that wait for their certificate
judge     whether a certificate is ours to have, and a relay's certificate valid now
join      a join token becomes an identity
renewer   when to ask for the next certificate, and over which tunnel
trust     new roots, vouched for by old ones
manager   the above put together, for the tunnels
"""
