"""People's tokens of moto's Cognito. It has no token endpoint, so no machine's token can be had."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest

from tests.e2e.stage import Serve, free_port
from tests.issuers.stage import PATIENCE, documented, program
from tests.programs import running

pytestmark = pytest.mark.timeout(600)

NAME, PASSWORD = "ann", "Password-1"


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [program("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with running(command, tmp_path_factory.mktemp("moto") / "log", f"{url}/moto-api/", seconds=PATIENCE):
        yield url


@pytest.fixture(scope="module")
def pool(moto: str) -> tuple[str, dict[str, str]]:
    """The id of a pool and the tokens of a person in it."""
    cognito = boto3.client(
        "cognito-idp", endpoint_url=moto, region_name="us-east-1", aws_access_key_id="id", aws_secret_access_key="key"
    )
    pool = cognito.create_user_pool(PoolName="lab")["UserPool"]["Id"]
    flow = "ADMIN_USER_PASSWORD_AUTH"
    made = cognito.create_user_pool_client(UserPoolId=pool, ClientName="web", ExplicitAuthFlows=[f"ALLOW_{flow}"])
    cognito.admin_create_user(UserPoolId=pool, Username=NAME)
    cognito.admin_set_user_password(UserPoolId=pool, Username=NAME, Password=PASSWORD, Permanent=True)
    tokens = cognito.admin_initiate_auth(
        UserPoolId=pool, ClientId=made["UserPoolClient"]["ClientId"], AuthFlow=flow,
        AuthParameters={"USERNAME": NAME, "PASSWORD": PASSWORD},
    )["AuthenticationResult"]  # fmt: skip
    return pool, tokens


@pytest.mark.parametrize(
    ("kind", "why"),
    [("AccessToken", "it carries username, so it was issued for a person"), ("IdToken", "it has no client_id")],
)
def test_a_persons_token_does_not_pass(
    moto: str, pool: tuple[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory, kind: str, why: str
) -> None:
    identity, tokens = pool
    keys = f"{moto}/{identity}/.well-known/jwks.json"
    configuration = documented("AWS Cognito", cognito={"user_pool_id": identity}, jwks_url=keys)
    with Serve(configuration, tmp_path_factory.mktemp("verifier")) as serve:
        answer = serve.ask(tokens[kind])

    assert (answer.status_code, answer.headers["X-M2M-Reason"]) == (403, "not_m2m")
    assert why in answer.json()["error_description"]
