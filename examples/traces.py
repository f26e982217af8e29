"""An embedded engine whose runs and steps are in OpenTelemetry traces, where `OTEL_EXPORTER_OTLP_ENDPOINT` is set."""

import asyncio

from lib_events.tracing.environment import open_traces
from lib_workflows import Context, Engine, current_step, step, workflow


@step
async def greet(name: str) -> str:
    return f"Hello, {name}! This is {current_step().traceparent}"


@workflow(name="greeting")
async def greeting(ctx: Context, name: str) -> str:
    return await ctx.step(greet, name)


async def main(url: str = "sqlite:///traces.db") -> str:
    async with open_traces("greeter") as traces, Engine.open(url, workflows=[greeting], traces=traces) as engine:
        handle = await engine.start(greeting, "Ada")
        return await handle.result(timeout=30)


if __name__ == "__main__":
    print(asyncio.run(main()))
