"""A Kubernetes API server of this machine, with etcd behind it: for manifests, admission and service accounts.

Nothing else of a cluster runs: no controller makes Pods of a Deployment, and no kubelet starts them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.e2e.stage import eventually, free_port
from tests.programs import CACHE, answers, run

BUILT = CACHE / "cluster"
TOKEN = "the-administrator-of-this-test"
AUDIENCE = "m2m-verifier"


class ApiServer:
    """Runs while its context is entered. The administrator is in group ``system:masters``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.ca = folder / "apiserver.crt"
        self.kubeconfig = folder / "kubeconfig"
        self.log = folder / "kube-apiserver.log"
        self._running = ExitStack()

    def __enter__(self) -> ApiServer:
        with ExitStack() as starting:
            self._etcd_url = f"http://127.0.0.1:{free_port()}"
            self._start(starting, "etcd", *self._etcd())
            self._start(starting, "kube-apiserver", *self._apiserver())
            eventually(
                lambda: answers(f"{self.url}/readyz"), f"the API server is ready; its log is {self.log}", seconds=120
            )
            self._write_kubeconfig()
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def kubectl(self, *arguments: str | Path, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator. Raises AssertionError with its message, unless `check` is false."""
        return run(BUILT / "kubectl", "--kubeconfig", self.kubeconfig, *arguments, input=stdin, check=check)

    def get(self, *arguments: str) -> Any:
        """What `kubectl get` finds, as an object."""
        return json.loads(self.kubectl("get", "--output", "json", *arguments).stdout)

    def namespace(self, name: str, **labels: str) -> str:
        """Create a namespace, or label an existing one."""
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        return name

    def apply(self, *objects: Any, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Apply objects on the server's side, strictly."""
        return self.kubectl(*APPLY, "--filename=-", stdin=yaml.safe_dump_all(objects), check=check)

    def try_to_create(self, manifest: Any) -> str:
        """Why the server would not create an object; empty if it would."""
        done = self.kubectl(*TRY, "--filename=-", stdin=yaml.safe_dump(manifest), check=False)
        return done.stderr if done.returncode else ""  # a warning is no refusal

    def token(self, namespace: str, account: str, audience: str = AUDIENCE) -> str:
        """A token of a service account, valid for an hour."""
        return self.kubectl("create", "token", account, "--namespace", namespace, f"--audience={audience}").stdout

    def _start(self, stack: ExitStack, name: str, program: Path | str, *arguments: str) -> None:
        log = stack.enter_context((self.folder / f"{name}.log").open("wb"))
        process = subprocess.Popen([program, *arguments], stdout=log, stderr=subprocess.STDOUT, cwd=self.folder)
        stack.callback(process.wait)
        stack.callback(process.kill)

    def _etcd(self) -> tuple[str, ...]:
        peers = f"http://127.0.0.1:{free_port()}"
        return (
            shutil.which("etcd") or pytest.fail("no etcd is installed: run `make cluster`"),
            "--data-dir=etcd", "--unsafe-no-fsync",
            f"--listen-client-urls={self._etcd_url}", f"--advertise-client-urls={self._etcd_url}",
            f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
        )  # fmt: skip

    def _apiserver(self) -> tuple[Path | str, ...]:
        program = BUILT / "kube-apiserver"
        assert (BUILT / "built").exists(), "kube-apiserver is not built: run `make cluster`"
        key = rsa.generate_private_key(65537, 2048)
        pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self.folder / "accounts.key").write_bytes(key.private_bytes(*pem))
        (self.folder / "tokens.csv").write_text(f"{TOKEN},administrator,administrator,system:masters\n")
        return (
            program, f"--etcd-servers={self._etcd_url}", f"--secure-port={self.port}", "--bind-address=127.0.0.1",
            "--cert-dir=.", "--service-cluster-ip-range=10.0.0.0/24", "--token-auth-file=tokens.csv",
            "--authorization-mode=RBAC", f"--service-account-issuer={self.url}", f"--api-audiences={self.url}",
            f"--service-account-jwks-uri={self.url}/openid/v1/jwks",
            "--service-account-key-file=accounts.key", "--service-account-signing-key-file=accounts.key",
            # No controller makes the default service accounts that this plugin waits for.
            "--disable-admission-plugins=ServiceAccount",
        )  # fmt: skip

    def _write_kubeconfig(self) -> None:
        cluster = {"server": self.url, "certificate-authority": str(self.ca)}
        self.kubeconfig.write_text(
            json.dumps({
                "apiVersion": "v1", "kind": "Config", "current-context": "test",
                "clusters": [{"name": "test", "cluster": cluster}],
                "users": [{"name": "test", "user": {"token": TOKEN}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            })
        )  # fmt: skip


TRY = ("create", "--dry-run=server", "--validate=strict")
APPLY = ("apply", "--server-side", "--validate=strict")
