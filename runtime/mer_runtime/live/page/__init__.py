"""``--serve``: a page that shows a live session, from the standard library's HTTP server."""

from mer_runtime.live.page.server import PageError, PageServer

__all__ = ["PageError", "PageServer"]
