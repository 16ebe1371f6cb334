"""The middleware that a team writes in an afternoon: FastAPI, PyJWKClient with its default cache, jwt.decode.

Nothing is tuned and nothing is sabotaged: it is what the documentation of both projects leads to, without the
metrics, the audit line and most of the checks that ours makes.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import jwt
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

ISSUER = os.environ["BENCH_ISSUER"]
SCOPE = os.environ["BENCH_SCOPE"]

app = FastAPI()
jwks_client = jwt.PyJWKClient(os.environ["BENCH_JWKS_URL"])


def deny(status: int, error: str, description: str) -> JSONResponse:
    challenge = f'Bearer error="{error}", error_description="{description}"'
    return JSONResponse({"error": error}, status_code=status, headers={"WWW-Authenticate": challenge})


@app.middleware("http")
async def authenticate(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    if request.url.path == "/health":
        return await call_next(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return deny(401, "invalid_token", "no token")
    try:
        key = jwks_client.get_signing_key_from_jwt(token)
        claims = jwt.decode(
            token,
            key.key,
            algorithms=["RS256", "ES256"],
            issuer=ISSUER,
            options={"require": ["exp", "iss", "client_id"], "verify_aud": False},
        )
    except jwt.PyJWTError:
        return deny(401, "invalid_token", "the token is not valid")
    if claims.get("token_use") != "access":
        return deny(401, "invalid_token", "not an access token")
    if SCOPE not in claims.get("scope", "").split():
        return deny(403, "insufficient_scope", "the token lacks the scope")
    request.state.claims = claims
    return await call_next(request)


@app.get("/verify")
async def verify(request: Request) -> Response:
    claims = request.state.claims
    return Response(
        headers={
            "X-M2M-Client-ID": claims["client_id"],
            "X-M2M-Scope": claims["scope"],
            "X-M2M-Role": "",
            "X-M2M-Issuer": "homelab",
            "Cache-Control": "no-store",
        }
    )


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}
