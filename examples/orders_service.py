"""A service of one's own that people reach with tokens of the AuthService.

evs admin resource create orders http://127.0.0.1:8010 --scope "orders=See your orders"
ORDERS_SECRET=… uvicorn orders_service:app --port 8010

`--actor evs-app` besides lets runs of workflows call it for the people who started them: see `my_orders.py`.
"""

import os
from typing import Annotated

from fastapi import Depends, FastAPI

from lib_auth.principal import Principal
from lib_auth.resource_server import ResourceServer

ISSUER = os.environ.get("EVS_AUTH_URL", "http://127.0.0.1:8001")
ME = os.environ.get("ORDERS_URL", "http://127.0.0.1:8010")

# --8<-- [start:service]
sign_in = ResourceServer(ISSUER, ME, client_id="orders", client_secret=os.environ["ORDERS_SECRET"], scopes=["orders"])
app = sign_in.protect(FastAPI())


@app.get("/orders")
async def orders(who: Annotated[Principal, Depends(sign_in.requires(scope="orders"))]) -> list[str]:
    """The orders of whoever asks."""
    return [f"an order of {who.username}"]


# --8<-- [end:service]


# --8<-- [start:strong]
strong = sign_in.requires(scope="orders", acr=("urn:evs:acr:2", "phr"), max_age_seconds=300)


@app.post("/orders/{order}/refund")
async def refund(order: str, who: Annotated[Principal, Depends(strong)]) -> str:
    """Give money back: only to who has just shown two factors."""
    return f"{order} is paid back, says {who.username}"


# --8<-- [end:strong]
