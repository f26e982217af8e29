"""Chance that a seed draws: the same test gets the same ids, numbers and pauses each time it runs."""

from sqlalchemy import func, select

from lib_events.chance import Seed
from lib_events.database import open_database
from lib_events.event_log import SCHEMA as EVENTS_SCHEMA
from lib_events.tables import events
from lib_workflows.tables import SCHEMA

SERVICE = "workflows"


async def seed_for(url: str, seed: int | None, service: str = SERVICE) -> Seed | None:
    """The seed of one more life on a database: it goes on from what is there, else ids would come twice."""
    if seed is None:
        return None
    database = await open_database(url, service=service, schemas=[EVENTS_SCHEMA, SCHEMA])
    try:
        told = await database.read(lambda connection: connection.scalar(select(func.count()).select_from(events)))
    finally:
        await database.close()
    return Seed(f"{seed} {told}")
