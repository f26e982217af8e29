"""A queue with limits: five mails at a time, a hundred a minute, and the customers take turns."""

# --8<-- [start:declared]
from datetime import timedelta

from pydantic import BaseModel

from lib_workflows import Context, Queue, Rate, step, workflow


class Mail(BaseModel):
    customer: str
    text: str


MAIL = Queue("mail", concurrency=5, rate=Rate(100, timedelta(minutes=1)), key="customer", per_key=1)


@step
async def send(mail: Mail) -> None: ...


@workflow(name="send-mail", queue=MAIL)
async def send_mail(ctx: Context, mail: Mail) -> None:
    await ctx.step(send, mail)


# --8<-- [end:declared]
