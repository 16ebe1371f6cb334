"use strict";
// What both Node sides share: a plain node:http server that answers as ours does.

const http = require("node:http");

const ALLOWED = (claims) => ({
  "X-M2M-Client-ID": claims.client_id,
  "X-M2M-Scope": claims.scope,
  "X-M2M-Role": "",
  "X-M2M-Issuer": "homelab",
  "Cache-Control": "no-store",
  "Content-Length": 0,
});

function deny(response, status, error) {
  const body = JSON.stringify({ error });
  response.writeHead(status, {
    "WWW-Authenticate": `Bearer error="${error}"`,
    "Content-Type": "application/json",
    "Content-Length": body.length,
  });
  response.end(body);
}

// verify(token) returns the claims, throws or rejects with a denial, which may carry a `status` of 403.
exports.serve = (verify) => {
  const server = http.createServer(async (request, response) => {
    if (request.url === "/health") {
      response.writeHead(200, { "Content-Length": 0 });
      return response.end();
    }
    const authorization = request.headers.authorization || "";
    if (authorization.slice(0, 7).toLowerCase() !== "bearer ") return deny(response, 401, "invalid_token");
    let claims;
    try {
      claims = await verify(authorization.slice(7));
    } catch (error) {
      return error.status === 403
        ? deny(response, 403, "insufficient_scope")
        : deny(response, 401, "invalid_token");
    }
    response.writeHead(200, ALLOWED(claims));
    response.end();
  });
  server.listen(Number(process.env.BENCH_PORT), "127.0.0.1");
  process.on("SIGTERM", () => process.exit(0));
};
