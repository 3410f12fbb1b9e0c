"""A foreign issuer that signs tokens, and its keys as a JWK set."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://issuer.example.com"
AUDIENCE = "qanat"


class Signer:
    """One key of an issuer."""

    def __init__(self, algorithm: str = "ES256", key_id: str | None = "k1") -> None:
        self.algorithm = algorithm
        self.key_id = key_id
        self.private: Any
        if algorithm.startswith(("RS", "PS")):
            self.private = rsa.generate_private_key(65537, 2048)
            public = RSAAlgorithm.to_jwk(self.private.public_key())
        elif algorithm == "EdDSA":
            self.private = ed25519.Ed25519PrivateKey.generate()
            public = OKPAlgorithm.to_jwk(self.private.public_key())
        else:
            self.private = ec.generate_private_key(ec.SECP256R1())
            public = ECAlgorithm.to_jwk(self.private.public_key())
        self.jwk: dict[str, Any] = json.loads(public) | ({} if key_id is None else {"kid": key_id})

    def sign(self, header: dict[str, Any] | None = None, **claims: Any) -> bytes:
        """A token; a claim that is None is left out."""
        now = int(time.time())
        found: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "s4", "iat": now, "exp": now + 600} | claims
        headers = ({} if self.key_id is None else {"kid": self.key_id}) | (header or {})
        token = jwt.encode(
            {key: value for key, value in found.items() if value is not None}, self.private, self.algorithm, headers
        )
        return token.encode()


def key_set(*signers: Signer, more: tuple[dict[str, Any], ...] = ()) -> bytes:
    return json.dumps({"keys": [*more, *(signer.jwk for signer in signers)]}).encode()
