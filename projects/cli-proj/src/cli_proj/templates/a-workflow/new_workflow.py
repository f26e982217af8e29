"""A workflow of one file: uv run evs up --workflows new_workflow.py"""

from datetime import timedelta

from pydantic import BaseModel, Field

from lib_workflows import Context, step, workflow


class Guest(BaseModel):
    """What a run is started with."""

    name: str = Field(min_length=1, description="Whom to greet")


class Greeting(BaseModel):
    """What a run ends with."""

    text: str


@step(retries=3, timeout=timedelta(seconds=10))
async def compose(name: str) -> str:
    """Compose the greeting; whatever has an effect or takes time belongs in a step."""
    return f"Hello, {name}"


@workflow(name="new-workflow")
async def new_workflow(ctx: Context, guest: Guest) -> Greeting:
    """Greet somebody."""
    return Greeting(text=await ctx.step(compose, guest.name))
