"""Reads the mails that an AuthService without a mail server writes into its folder."""

import re
from urllib.parse import urlsplit

from lib_events.testing import wait_until

LINK = re.compile(r"http://127\.0\.0\.1:8001\S+\?\S+=\S+")


class Mailbox:
    """The mails that came, each once."""

    def __init__(self, provider):
        self._folder = provider.settings.mails
        self._read = set()

    async def receive(self, kind):
        """Wait for the next mail of a kind and return its text."""

        def look():
            return next((path for path in self._folder.glob(f"*-{kind}-*.eml") if path not in self._read), None)

        path = await wait_until(look)
        self._read.add(path)
        return path.read_text()

    def unread(self, kind="*"):
        return [path for path in self._folder.glob(f"*-{kind}-*.eml") if path not in self._read]

    async def link(self, kind):
        """Wait for the next mail of a kind and return where its link leads."""
        parts = urlsplit(LINK.search(await self.receive(kind)).group())
        return f"{parts.path}?{parts.query}"
