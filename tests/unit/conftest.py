"""Fixtures of the unit tests: keys made once, and coroutines run on a loop whose time jumps."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import yaml

from tests.minting import Part
from tests.unit.support import JWKS_URL, Clock, FakeFetch, JumpingLoop, SigningKey, claims, jwks
from verifier.config import Config
from verifier.config.environment import Environment
from verifier.config.load import load


def pytest_pycollect_makeitem(name: str, obj: object) -> None:
    """Each ``async def`` test has a ``runner``."""
    if name.startswith("test_") and inspect.iscoroutinefunction(obj):
        pytest.mark.usefixtures("runner")(obj)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run ``async def`` tests with their ``runner``."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    pyfuncitem.funcargs["runner"].run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture
def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """The loop of an ``async def`` test: a JumpingLoop, where a module or a test names no other."""
    return JumpingLoop


@pytest.fixture
def runner(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[asyncio.Runner]:
    """Runs an ``async def`` test, and what its fixtures start on the same loop."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        yield runner


@pytest.fixture
def enter(runner: asyncio.Runner) -> Iterator[Callable[[contextlib.AbstractAsyncContextManager[Any]], Any]]:
    """Enter an asynchronous context on the test's loop; it is left after the test."""
    stack = contextlib.AsyncExitStack()
    yield lambda context: runner.run(stack.enter_async_context(context))
    runner.run(stack.aclose())


@pytest.fixture(scope="session")
def signer() -> SigningKey:
    """RSA-2048, the key that most tokens here are signed with."""
    return SigningKey.generate("RS256", "rsa")


@pytest.fixture(scope="session")
def other_signer() -> SigningKey:
    """Another RSA-2048 key."""
    return SigningKey.generate("RS256", "other")


@pytest.fixture(scope="session")
def weak_signer() -> SigningKey:
    """RSA-1024: too short to be taken."""
    return SigningKey.generate("RS256", "weak", bits=1024)


@pytest.fixture(scope="session")
def ec_signer() -> SigningKey:
    """P-256."""
    return SigningKey.generate("ES256", "ec")


@pytest.fixture(scope="session")
def ed_signer() -> SigningKey:
    """Ed25519."""
    return SigningKey.generate("EdDSA", "ed")


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Where to read and where to write."""
    reader, writer = os.pipe()
    with open(reader, "rb") as read, open(writer, "wb", 0) as write:
        yield read, write


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fetch(signer: SigningKey) -> FakeFetch:
    """A network on which the issuer publishes its one key."""
    return FakeFetch({JWKS_URL: jwks(signer)})


@pytest.fixture
def mint(signer: SigningKey) -> Callable[..., bytes]:
    """Make a valid token, with a changed header and changed claims."""

    def make(*, header: Part | None = None, **changes: Any) -> bytes:
        return signer.sign(claims(**changes), header=header).encode()

    return make


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[str | dict[str, Any]], Path]:
    """Write a configuration file."""

    def write(content: str | dict[str, Any]) -> Path:
        path = tmp_path / "m2m.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), "utf-8")
        return path

    return write


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the variables that the verifier reads is set."""
    for name in Environment.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def make_config(
    write_config: Callable[[str | dict[str, Any]], Path], no_environment: None
) -> Callable[[str | dict[str, Any]], Config]:
    """Load a configuration as the commands do, from a file. Raises ConfigError."""

    def make(content: str | dict[str, Any], **environment: Any) -> Config:
        return load(write_config(content), Environment(**environment))

    return make


@pytest.fixture
def lab() -> dict[str, Any]:
    """The configuration of one issuer, as a file would have it."""
    issuer = {"name": "lab", "issuer": "https://issuer.example", "jwks_url": JWKS_URL, "audience": ["api"]}
    return {"issuers": [issuer]}


@pytest.fixture
def offline(tmp_path: Path, signer: SigningKey) -> dict[str, Any]:
    """The same issuer with a key file: it needs no network."""
    (tmp_path / "keys.json").write_bytes(jwks(signer))
    issuer = {"name": "lab", "issuer": "https://issuer.example", "audience": ["api"], "jwks_file": "keys.json"}
    return {"issuers": [issuer]}
