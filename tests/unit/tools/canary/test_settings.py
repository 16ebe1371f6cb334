"""The canary's file: every error is named, with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from verifier.config import ConfigError
from verifier.identity import IDENTITY_HEADERS
from verifier.tools.canary.settings import Settings, load

GRANT = {"url": "https://id.example/token", "client_id": "canary", "client_secret_file": "secret"}
GOOD: dict[str, Any] = {
    "url": "https://api.example/canary", "token": GRANT, "identity": {"X-M2M-Client-ID": "canary"},
}  # fmt: skip


def loaded(folder: Path, **changes: Any) -> Settings:
    file = folder / "canary.yaml"
    file.write_text(yaml.safe_dump({name: value for name, value in {**GOOD, **changes}.items() if value != ""}))
    return load(file)


def test_files_are_relative_to_the_settings_and_every_identity_header_is_there(tmp_path: Path) -> None:
    settings = loaded(tmp_path, identity={"x-m2m-client-id": "canary", "X-User-ID": ""})

    assert settings.token is not None
    assert settings.token.client_secret_file == tmp_path / "secret"
    assert settings.identity == dict.fromkeys(IDENTITY_HEADERS) | {"X-M2M-Client-ID": "canary", "X-User-ID": ""}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"url": "http://api.example/canary"}, "canary.yaml:7: url: must be https (http only on loopback)"),
        ({"url": "https://api.example/canary?x"}, "url: must have no query"),
        ({"token": ""}, "must have either token or token_file"),
        ({"token_file": "token"}, "must have either token or token_file"),
        ({"token": GRANT | {"url": "http://id.example/"}}, "token.url: must be https"),
        ({"token": GRANT | {"client_secret": "s3cret"}}, "token.client_secret: unknown key: did you mean"),
        ({"identity": {"X-M2M-Issuer": "lab"}}, "identity: X-M2M-Client-ID must have a value"),
        ({"identity": {"X-M2M-Client-ID": "a\nb"}}, "identity: X-M2M-Client-ID: must be a header value"),
        ({"internal_paths": ["metrics"]}, "internal_paths[0]: must be a path"),
        ({"internal_paths": ["/metrics", "//elsewhere.example/"]}, "internal_paths[1]: must be a path"),
        ({"interval": 0}, "interval: "),
        ({"intervall": 9}, "intervall: unknown key: did you mean `interval`?"),
    ],
)
def test_a_wrong_value_is_an_error_that_quotes_no_secret(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, **changes)

    assert problem in "\n".join(caught.value.problems)
    assert "s3cret" not in str(caught.value.problems)
