"""`evs open`: the GUI of the product, in the browser."""

from cli_proj import browser
from cli_proj.context import resolve_context
from cli_proj.failure import usage
from cli_proj.options import Options
from cli_proj.output import Output
from cli_proj.printing import write


def open_(page: str = "/", /, *, options: Options = Options()) -> None:  # noqa: B008
    """Open a page of the GUI in the browser, if there is one on this machine, and print its address.

    Parameters
    ----------
    page
        Which one, such as /runs or /approvals (default: home).
    """
    if not page.startswith("/") or page.startswith("//"):
        raise usage(f"PAGE must be a path that begins with one /, got {page!r}")
    address = resolve_context(options.context).gui_url + page
    Output(options.output).item({"url": address}, lambda opened: write(f"{opened['url']}\n"))
    if browser.is_here():
        browser.show(address)
