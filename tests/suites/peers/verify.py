"""PyPI `sigstore` on a bundle of ours: verify.py TRUSTED_ROOT BUNDLE IDENTITY ISSUER; prints the predicate type."""

import json
import sys

from sigstore.models import Bundle, TrustedRoot
from sigstore.verify import Verifier, policy

root, bundle, identity, issuer = sys.argv[1:]
verifier = Verifier(trusted_root=TrustedRoot.from_file(root))
with open(bundle, encoding="utf-8") as file:
    bundle = Bundle.from_json(file.read())
_, payload = verifier.verify_dsse(bundle, policy.Identity(identity=identity, issuer=issuer))
print(json.loads(payload)["predicateType"])
