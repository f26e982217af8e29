"""What the pruner deletes: nothing as long as it may matter, everything once it cannot."""

from sqlalchemy import func, select

from auth_svc.pruner import prune
from auth_svc.tables import (
    codes,
    device_codes,
    families,
    pushed_requests,
    refresh_tokens,
    revoked_tokens,
    sessions,
    sign_ins,
)

KEPT = (sign_ins, pushed_requests, codes, device_codes, revoked_tokens, refresh_tokens, families, sessions)
HOUR, DAY = 3_600, 24 * 3_600


async def test_each_row_stays_as_long_as_it_may_matter(provider_on_both):
    provider = provider_on_both
    browser = await provider.browser()
    await browser.sign_in("ada")
    await browser.set_up_app()
    tokens = (await provider.redeem(provider.answer(await provider.authorize(browser))["code"])).json()
    await (await provider.browser()).sign_in("ada")  # and goes no further
    await provider.post("/oauth2/par", provider.request(), provider.gui())
    await provider.post("/oauth2/device_authorization", {"client_id": "evs-cli", "scope": "openid"})
    await provider.post("/oauth2/revoke", {"token": tokens["access_token"]}, provider.gui())
    now = provider.actor().at

    async def gone(seconds):
        """The tables that nothing is left in when so much time has passed."""
        await provider.service.database.transact(prune, now + seconds * 1_000_000)

        def empty(connection):
            return [table.name for table in KEPT if not connection.scalar(select(func.count()).select_from(table))]

        return await provider.service.database.read(empty)

    assert await gone(0) == []
    brief = ["sign_ins", "pushed_requests"]
    # A code is known while what came of it may live, or using it twice would not show; so is that a token was revoked,
    # by a clock that is two hours behind, too.
    assert await gone(HOUR) == brief
    assert await gone(HOUR + 61) == [*brief, "codes"]
    assert await gone(HOUR + 601) == [*brief, "codes", "device_codes"]
    assert await gone(2 * HOUR + 240) == [*brief, "codes", "device_codes"]
    brief += ["codes", "device_codes", "revoked_tokens"]
    assert await gone(2 * HOUR + 301) == await gone(30 * DAY - 60) == brief
    brief += ["refresh_tokens", "families"]
    assert await gone(30 * DAY + 1) == await gone(30 * DAY + 12 * HOUR - 60) == brief
    assert await gone(30 * DAY + 12 * HOUR + 1) == [*brief, "sessions"]
