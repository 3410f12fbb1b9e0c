"""OAuth 2.0 at the relay: tokens of its own for client credentials, and the JWTs of foreign issuers.

compact     a JWT's outside: what it says of itself before anything is believed
keyset      public keys as JWKs, from a file or a URL
foreign     JWTs that somebody else signed
keys        our own signing keys, in the state
tokens      the tokens that we sign
form        what comes to the token endpoint
endpoint    what it answers
"""
