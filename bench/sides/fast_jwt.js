"use strict";
// fast-jwt in its fastest form: the key is known beforehand, and verified tokens stay in its LRU.

const { createVerifier } = require("fast-jwt");
const { serve } = require("./answer.js");

const scope = process.env.BENCH_SCOPE;
const verify = createVerifier({
  key: process.env.BENCH_PUBLIC_KEY,
  algorithms: ["RS256"],
  allowedIss: process.env.BENCH_ISSUER,
  requiredClaims: ["exp", "iss", "client_id"],
  cache: Number(process.env.BENCH_CACHE_SIZE),
});

serve((token) => {
  const claims = verify(token);
  if (claims.token_use !== "access") throw new Error("not an access token");
  if (!claims.scope.split(" ").includes(scope)) throw Object.assign(new Error("scope"), { status: 403 });
  return claims;
});
