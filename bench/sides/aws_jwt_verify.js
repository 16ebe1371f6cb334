"use strict";
// AWS's own verifier for Cognito, as its README shows it; only the key set comes from loopback.

const http = require("node:http");
const { CognitoJwtVerifier } = require("aws-jwt-verify");
const { SimpleJwksCache } = require("aws-jwt-verify/jwk");
const { JwtInvalidScopeError } = require("aws-jwt-verify/error");
const { serve } = require("./answer.js");

const fetcher = {
  fetch: () =>
    new Promise((resolve, reject) => {
      http
        .get(process.env.BENCH_JWKS_URL, (response) => {
          const chunks = [];
          response.on("data", (chunk) => chunks.push(chunk));
          response.on("end", () => resolve(Buffer.concat(chunks)));
        })
        .on("error", reject);
    }),
};

const jwksCache = new SimpleJwksCache({ fetcher });
const scope = process.env.BENCH_SCOPE;
const verifier = CognitoJwtVerifier.create(
  { userPoolId: process.env.BENCH_USER_POOL_ID, tokenUse: "access", clientId: null, scope },
  { jwksCache },
);

serve(async (token) => {
  try {
    return await verifier.verify(token);
  } catch (error) {
    if (error instanceof JwtInvalidScopeError) error.status = 403;
    throw error;
  }
});
