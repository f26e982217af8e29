"""On PostgreSQL: each service gets the URL of its own schema and role, and sees nobody else's."""

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import replace

from cli_proj.failure import CommandFailed
from cli_proj.supervise.child import ServicePlan
from cli_proj.supervise.plan import APP, AUTH, Plan

SHARED = "EVS_DATABASE_URL"
OWN = {AUTH: "EVS_AUTH_DATABASE_URL", APP: "EVS_APP_DATABASE_URL"}


async def with_own_databases(plan: Plan) -> Plan:
    """Return `plan` with every service's own database URL; raises `CommandFailed`.

    The shared URL belongs to somebody who may create roles, so no service is handed it.
    """
    settings = plan.settings
    if settings.database_url is None:
        return plan
    given = {AUTH: settings.auth_database_url, APP: settings.app_database_url}
    made = {} if all(given.values()) else await _provision(plan)
    urls = {service: given[service] or made[service] for service in OWN}
    stages = tuple(tuple(_with_own_database(service, urls) for service in stage) for stage in plan.stages)
    return replace(plan, stages=stages)


def _with_own_database(plan: ServicePlan, urls: Mapping[str, str]) -> ServicePlan:
    environment = {name: value for name, value in plan.environment.items() if name not in (SHARED, *OWN.values())}
    owner = APP if plan.name.startswith("worker-") else plan.name
    if owner in OWN:
        environment[OWN[owner]] = urls[owner]
    return replace(plan, environment=environment)


async def _provision(plan: Plan) -> dict[str, str]:
    environment = dict(plan.stages[-1][0].environment)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lib_events.provision", "--data", str(plan.data)),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, words = await process.communicate()
    if process.returncode:
        last = words.decode().strip().splitlines() or ["the schemas could not be made"]
        raise CommandFailed(last[-1], hint="correct EVS_DATABASE_URL, or leave it out to use SQLite")
    urls: dict[str, str] = json.loads(output)
    return urls
