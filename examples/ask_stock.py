"""A service that people call and that calls another one for them: `evs admin resource edit stock --actor orders`."""

from datetime import timedelta

from lib_auth.delegations import Delegations

STOCK = "https://stock.example"


# --8<-- [start:ask]
async def token_for_stock(orders: Delegations, asked_with: str) -> str:
    """A token for the stock that says who asked `orders`, with which token, and that `orders` acts for them.

    Raises `ConsentNeeded`, which says where they allow it, once.
    """
    given = await orders.begin(
        asked_with, resources=[STOCK], scope=["stock:read"], purpose="Look into the stock", lasts=timedelta(minutes=5)
    )
    return (await orders.token(given.id, resource=STOCK, scope=["stock:read"])).access_token


# --8<-- [end:ask]
