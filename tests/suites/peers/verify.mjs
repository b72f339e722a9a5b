// npm `@sigstore/verify` on a bundle of ours: verify.mjs TRUSTED_ROOT BUNDLE IDENTITY ISSUER, or TRUSTED_ROOT BUNDLE KEY;
// prints the predicate type.
import { createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.env.NODE_FOLDER + "/");
const { bundleFromJSON } = require("@sigstore/bundle");
const { TrustedRoot } = require("@sigstore/protobuf-specs");
const { Verifier, toSignedEntity, toTrustMaterial } = require("@sigstore/verify");

const [root, file, identity, issuer] = process.argv.slice(2);
const json = (path) => JSON.parse(readFileSync(path, "utf8"));
const bundle = bundleFromJSON(json(file));
const keyed = issuer === undefined;
const key = () => ({ publicKey: createPublicKey(readFileSync(identity)), validFor: () => true });
const material = toTrustMaterial(TrustedRoot.fromJSON(json(root)), keyed ? key : undefined);
const logged = bundle.verificationMaterial.tlogEntries.length;
const options = keyed ? { tlogThreshold: logged, ctlogThreshold: 0, timestampThreshold: 0 } : {};
const policy = keyed ? undefined : { subjectAlternativeName: identity, extensions: { issuer } };
new Verifier(material, options).verify(toSignedEntity(bundle), policy);
const payload = bundle.content.dsseEnvelope.payload;
console.log(JSON.parse(Buffer.from(payload).toString("utf8")).predicateType);
