"""What NATS must know of us before we come: an account and a key per service, and the streams.

The bundled server is given both by `nats_server`. The operator of a cluster runs

    python -m lib_events.nats_operator accounts   # makes the keys in DATA/secrets, prints what nats.conf includes
    python -m lib_events.nats_operator streams    # makes the streams, with the keeper's key
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nacl.signing
import nats.errors
import nkeys
from nats.js.api import StreamConfig
from nats.js.client import JetStreamContext
from nats.js.errors import BadRequestError

from lib_events.nats.access import NatsAccess, NatsClient, nats_access, seed_file
from lib_events.nats.permissions import (
    KEEPER,
    accounts,
    import_prefix,
    inbox_prefix,
    stream_name,
    stream_settings,
)
from lib_events.secret_file import create_secret
from lib_events.settings import Settings, SettingsRejected

SERVICES = ("auth-svc", "app-svc")  # who publishes or imports; the GUI speaks HTTP only
ANSWER_SECONDS = 5.0
USER_KEY_BYTE = nkeys.PREFIX_BYTE_USER


def create_seeds(secrets: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the seed of each service or keeper of that name, made where there is none."""
    return {name: create_secret(seed_file(secrets, name), new_seed) for name in names}


def new_seed() -> str:
    """Make the secret half of a key."""
    seed: bytes = nkeys.encode_seed(bytes(nacl.signing.SigningKey.generate()), USER_KEY_BYTE)
    return seed.decode()


def accounts_of(seeds: Mapping[str, str]) -> dict[str, Any]:
    """The `accounts` of the server's configuration, from the seeds of the services and of the keeper."""
    return accounts({name: _public_key(seed) for name, seed in seeds.items()})


async def make_streams(access: NatsAccess, services: Iterable[str] = SERVICES, *, seed: str | None = None) -> None:
    """Make the stream of each service, or give it our settings; `access` and `seed` are the keeper's."""
    client = NatsClient()
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await client.connect(
                **access.connect_options(),
                nkeys_seed_str=seed,
                inbox_prefix=inbox_prefix(KEEPER),
                allow_reconnect=False,
                error_cb=_ignore,
            )
        for service in services:
            jetstream = JetStreamContext(client, prefix=import_prefix(service), timeout=ANSWER_SECONDS)
            settings = stream_settings(service, replicas=access.replicas)
            config = StreamConfig(name=stream_name(service)).evolve(**settings)
            try:
                await jetstream.add_stream(config)
            except BadRequestError:  # it is there, with other settings
                await jetstream.update_stream(config)
    finally:
        await client.close()


async def _ignore(_error: Exception) -> None:
    """What matters is raised; nats-py would print it as well, with its stack."""


def _public_key(seed: str) -> str:
    key: bytes = nkeys.from_seed(bytearray(seed.encode())).public_key
    return key.decode()


def _print_accounts(settings: Settings) -> None:
    settings.prepare_data()
    found = accounts_of(create_seeds(settings.secrets, (KEEPER, *SERVICES)))
    print(json.dumps({"accounts": found}, indent=2))  # noqa: T201 - JSON is valid in nats-server's format


def _make_streams(settings: Settings) -> None:
    access = nats_access(settings, KEEPER)
    if access is None:
        raise SettingsRejected("EVS_NATS_URL must name the cluster, got nothing; the bundled server has its streams")
    try:
        asyncio.run(make_streams(access))
    except (OSError, TimeoutError, nats.errors.Error) as error:
        raise SettingsRejected(
            f"NATS at {access} must take the keeper's key {access.seed_file} and make streams, and did not: "
            f"{error!r}; see docs/guides/run-it.md"
        ) from error
    print(*map(stream_name, SERVICES))  # noqa: T201


COMMANDS = {"accounts": _print_accounts, "streams": _make_streams}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare a cluster for our services."""
    parser = argparse.ArgumentParser(
        prog="python -m lib_events.nats_operator", description="Prepare a NATS cluster for our services."
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--data", type=Path, default=argparse.SUPPRESS, help="data folder (EVS_DATA)")
    options = vars(parser.parse_args(arguments))
    command = COMMANDS[options.pop("command")]
    try:
        command(Settings(**options))
    except SettingsRejected as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
