"""The transfer operations of the admin API, as tests of several modules use them."""


class Api:
    """The transfer operations as an administrator."""

    def __init__(self, provider, token):
        self.provider = provider
        self.headers = {"authorization": f"Bearer {token}"}

    async def call(self, method, path, body=None, status=200):
        answer = await self.provider.http.request(method, f"/v1/admin{path}", json=body, headers=self.headers)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def export(self, *, secrets=False):
        return await self.call("GET", f"/export?secrets={str(secrets).lower()}")

    async def load(self, document, *, dry_run=False):
        return await self.call("POST", f"/import?dry_run={str(dry_run).lower()}", document)
