"""Liveness and readiness over HTTP: `/healthz` says the process answers, `/readyz` that it can work."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

logger = logging.getLogger(__name__)

CHECK_SECONDS = 2.0

type Check = Callable[[], Awaitable[str | None]]  # None: ready; else, in public words, why not


def health_routes(checks: Mapping[str, Check]) -> list[Route]:
    """Return the routes `/healthz` and `/readyz`; the latter runs the named `checks` side by side."""

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        answers = await asyncio.gather(*(_ask(name, check) for name, check in checks.items()))
        ready = all(answer is None for answer in answers)
        found = {name: answer or "ok" for name, answer in zip(checks, answers, strict=True)}
        body = {"status": "ready" if ready else "not ready", "checks": found}
        return JSONResponse(body, 200 if ready else 503, headers={"cache-control": "no-store"})

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


async def _ask(name: str, check: Check) -> str | None:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check()
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS:g} s"
    except Exception:
        logger.exception("readiness check %s failed", name)  # the reason stays here: anybody may ask /readyz
        return "failed"
