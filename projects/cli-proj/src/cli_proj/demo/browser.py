"""A person's browser without JavaScript: cookies, redirects, forms, and a note of where it was sent."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self
from urllib.parse import urljoin, urlsplit

import httpx

from cli_proj.demo.page import Form, Page, read_page

MOST_REDIRECTS = 15


class Browser:
    """One browser with its own cookies."""

    def __init__(self) -> None:
        # Cookies ignore ports, so one jar serves the GUI and the AuthService, as in every browser.
        self._http = httpx.AsyncClient(timeout=30, verify=False, trust_env=False)  # noqa: S501 - http on loopback only
        self.hops: list[httpx.URL] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def open(self, url: str, *, stop_at: str | None = None) -> Page:
        """Go to `url` and wherever that leads; a redirect to a path that is `stop_at` is noted and not followed."""
        self.hops = [httpx.URL(url)]
        return await self._go(self._http.build_request("GET", url), stop_at)

    async def submit(
        self,
        page: Page,
        form: Form,
        values: Mapping[str, str],
        *,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
        stop_at: str | None = None,
    ) -> Page:
        """Fill in a form of `page` and send it."""
        pairs: dict[str, list[str]] = {}
        for name, value in form.filled(dict(values)):
            pairs.setdefault(name, []).append(value)
        parts = urlsplit(page.url)
        headers = {"origin": f"{parts.scheme}://{parts.netloc}", "referer": page.url}
        request = self._http.build_request(form.method.upper(), form.action, data=pairs, files=files, headers=headers)
        self.hops = [request.url]
        return await self._go(request, stop_at)

    def hop(self, path: str) -> httpx.URL:
        """Return the address with `path` that the last journey went through; raises `LookupError`."""
        for url in self.hops:
            if url.path == path:
                return url
        raise LookupError(f"the way must lead through {path}, got {' → '.join(url.path for url in self.hops)}")

    async def _go(self, request: httpx.Request, stop_at: str | None) -> Page:
        answer = await self._http.send(request)
        while answer.is_redirect:
            target = httpx.URL(urljoin(str(answer.url), answer.headers["location"]))
            self.hops.append(target)
            if len(self.hops) > MOST_REDIRECTS:
                raise LookupError(f"{request.url} leads in a circle")
            if target.path == stop_at:
                break
            answer = await self._http.get(target)
        return read_page(str(answer.url), answer.status_code, answer.text)
