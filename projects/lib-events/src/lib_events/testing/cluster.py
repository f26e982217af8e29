"""For tests: three real nats-servers on loopback as one cluster, with TLS and an account per service."""

import asyncio
import datetime
import ipaddress
import json
import os
import signal
import ssl
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nats.errors
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lib_events.nats.access import NatsAccess, seed_file
from lib_events.nats.permissions import KEEPER
from lib_events.nats_operator import SERVICES, accounts_of, create_seeds, make_streams
from lib_events.nats_server import server_binary
from lib_events.parent_watch import dying_with_us
from lib_events.testing.ports import free_ports

LOOPBACK = "127.0.0.1"
NODES = 3
START_SECONDS = 60.0
DAY = datetime.timedelta(days=1)


class NatsCluster:
    """Three nats-servers; `async with` starts them and makes the streams, three replicas each."""

    def __init__(self, folder: Path, *, services: Sequence[str] = SERVICES) -> None:
        self.folder = folder
        self.ports = free_ports(NODES)
        self._routes = free_ports(NODES)
        self._services = tuple(services)
        self._children: list[subprocess.Popen[bytes] | None] = [None] * NODES
        self._logs = ExitStack()

    @property
    def url(self) -> str:
        """Where clients connect: all three."""
        return ",".join(f"tls://{LOOPBACK}:{port}" for port in self.ports)

    @property
    def ca(self) -> Path:
        """The certificate that vouches for the servers."""
        return self.folder / "ca.pem"

    def credentials(self, service: str) -> Path:
        """The file with the nkey seed of `service`."""
        return seed_file(self.folder / "secrets", service)

    def access(self, service: str | None) -> NatsAccess:
        """How `service` connects; None is a stranger without a key."""
        return NatsAccess.parse(
            self.url,
            seed_file=self.credentials(service) if service else None,
            tls=ssl.create_default_context(cafile=self.ca),
            replicas=NODES,
        )

    async def start(self) -> None:
        """Make keys and certificates, start all nodes, and wait until the streams are there."""
        _write_certificates(self.folder)
        seeds = create_seeds(self.folder / "secrets", (KEEPER, *self._services))
        async with asyncio.timeout(START_SECONDS):
            self._start_nodes(accounts_of(seeds))
            while not await self._made_streams():
                if any(child is None or child.poll() is not None for child in self._children):
                    # Another test took one of our ports in the moment we looked away.
                    self._kill_all()
                    self.ports, self._routes = free_ports(NODES), free_ports(NODES)
                    self._start_nodes(accounts_of(seeds))
                await asyncio.sleep(0.1)

    def _start_nodes(self, accounts: dict[str, Any]) -> None:
        for node in range(NODES):
            path = self.folder / f"node-{node}.conf"
            path.write_text(json.dumps(self._configuration(node, accounts), indent=2))
            self.start_node(node)

    def start_node(self, node: int) -> None:
        """Start one node; it finds the others by itself."""
        log = self._logs.enter_context((self.folder / f"node-{node}.log").open("ab"))
        command = dying_with_us([server_binary(), "--config", self.folder / f"node-{node}.conf"])
        self._children[node] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603

    def kill_node(self, node: int) -> None:
        """Kill one node (SIGKILL)."""
        child = self._child(node)
        child.kill()
        child.wait()

    def freeze_node(self, node: int) -> None:
        """Make one node hang (SIGSTOP): its connections stay open, and nothing answers."""
        os.kill(self._child(node).pid, signal.SIGSTOP)

    def thaw_node(self, node: int) -> None:
        """Let a frozen node go on."""
        os.kill(self._child(node).pid, signal.SIGCONT)

    async def stop(self) -> None:
        """Kill what runs."""
        await asyncio.to_thread(self._kill_all)
        self._logs.close()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _kill_all(self) -> None:
        for child in filter(None, self._children):
            child.kill()
            child.wait()

    def _child(self, node: int) -> subprocess.Popen[bytes]:
        child = self._children[node]
        assert child is not None  # noqa: S101 - for the type checker
        return child

    async def _made_streams(self) -> bool:
        try:
            await make_streams(self.access(KEEPER), self._services)
        except (OSError, TimeoutError, nats.errors.Error):  # the cluster has not found together yet
            return False
        return True

    def _configuration(self, node: int, accounts: dict[str, Any]) -> dict[str, Any]:
        tls = {
            "cert_file": str(self.folder / "server.pem"),
            "key_file": str(self.folder / "server.key"),
            "ca_file": str(self.ca),
        }
        return {
            "server_name": f"node-{node}",
            "host": LOOPBACK,
            "port": self.ports[node],
            "tls": tls,
            "jetstream": {"store_dir": str(self.folder / f"node-{node}")},
            "cluster": {
                "name": "evs",
                "host": LOOPBACK,
                "port": self._routes[node],
                "tls": tls | {"verify": True},
                "routes": [f"nats://{LOOPBACK}:{port}" for port in self._routes],
            },
            "accounts": accounts,
        }


def _write_certificates(folder: Path) -> None:
    """A root of our own, and a certificate of it for the servers on loopback."""
    root_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    signs_certificates = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    root = (
        _certificate("evs test root", root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(signs_certificates, critical=True)
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))])
    server = _certificate("evs test server", server_key.public_key()).add_extension(names, critical=False)
    for file, builder in (("ca.pem", root), ("server.pem", server)):
        signed = builder.add_extension(issuer, critical=False).sign(root_key, hashes.SHA256())
        (folder / file).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def _certificate(subject: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "evs test root")]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
