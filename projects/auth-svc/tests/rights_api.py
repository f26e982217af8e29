"""The admin API as an administrator, and what tests of rights look at."""

from sqlalchemy import insert

from auth_svc.tables import group_members, users

ADMIN = "/v1/admin"


class Api:
    """The admin API as an administrator."""

    def __init__(self, provider, token):
        self.provider = provider
        self.headers = {"authorization": f"Bearer {token}"}

    async def call(self, method, path, body=None, status=None):
        answer = await self.provider.http.request(method, ADMIN + path, json=body, headers=self.headers)
        assert answer.status_code == (status or {"POST": 201, "PUT": 204, "DELETE": 204}.get(method, 200)), answer.text
        return answer.json() if answer.content else None


async def claims(provider, tokens):
    """What an access token says to the AppService, as the introspection tells it."""
    return await provider.introspect(tokens["access_token"])


async def gather_crowd(database, number, *told):
    """A crowd that comes in groups: so many at once would take a transaction longer than it may."""
    for first in range(0, number, 1_000):
        await database.transact(crowd, range(first, min(first + 1_000, number)), *told)


def crowd(connection, numbers, roles='["clerk","member"]', group=None):
    """Many people who hold a role, or are in a group."""
    columns = ("id", "username", "username_key")
    common = {"roles": roles, "created_at": 1, "password_changed_at": 1, "tokens_valid_after": 0}
    rows = [dict.fromkeys(columns, f"clerk-{each}") | common for each in numbers]
    connection.execute(insert(users), rows)
    if group is not None:
        connection.execute(
            insert(group_members), [{"group_id": group, "user_id": row["id"], "added_at": 1} for row in rows]
        )
