"""Our own icons: 24 by 24 line drawings, inline so that they follow the text's colour and the theme."""

from typing import Final

import htpy as h

PATHS: Final[dict[str, str]] = {
    "home": "M4 11 12 4l8 7v8a1 1 0 0 1-1 1h-4v-6H9v6H5a1 1 0 0 1-1-1z",
    "workflows": "M4 5h6v5H4zM14 14h6v5h-6zM10 7.5h4a3 3 0 0 1 3 3V14",
    "runs": "M4 6h10M4 12h16M4 18h7",
    "queues": "M3 6h4v12H3zM10 6h4v12h-4zM17 12h4.5M19 9l3 3-3 3",
    "approvals": "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM8.5 12.2l2.4 2.4 4.6-5",
    "events": "M3 12h4l3-8 4 16 3-8h4",
    "account": "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4.5 20c.8-3.6 3.8-5 7.5-5s6.7 1.4 7.5 5",
    "sun": "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2v2M12 20v2M4.9 4.9l1.4 1.4"
    "M17.7 17.7l1.4 1.4M2 12h2M20 12h2M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4",
    "moon": "M20 14.5A8 8 0 0 1 9.5 4 8 8 0 1 0 20 14.5z",
    "screen": "M4 5h16v11H4zM9 20h6M12 16v4",
    "leave": "M10 4H5v16h5M14 8l4 4-4 4M18 12H9",
    "check": "M5 12.5 10 17.5 19 7",
    "cross": "M6 6l12 12M18 6 6 18",
    "clock": "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 7v5l3 2",
    "pause": "M9 6v12M15 6v12",
    "play": "M7 5l12 7-12 7z",
    "alert": "M12 4 2.5 20h19zM12 10v4M12 17v.5",
    "undo": "M8 5 4 9l4 4M4 9h10a6 6 0 0 1 0 12h-3",
    "ban": "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM6 6l12 12",
    "bolt": "M13 3 5 14h6l-1 7 8-11h-6z",
    "database": "M5 6c0-1.7 3-3 7-3s7 1.3 7 3-3 3-7 3-7-1.3-7-3z"
    "M5 6v12c0 1.7 3 3 7 3s7-1.3 7-3V6M5 12c0 1.7 3 3 7 3s7-1.3 7-3",
    "timer": "M12 21a8 8 0 1 0 0-16 8 8 0 0 0 0 16zM12 9v4M9 2h6",
    "mail": "M3 6h18v12H3zM3 7l9 7 9-7",
    "bell": "M6 16V11a6 6 0 1 1 12 0v5l2 2H4zM10 21h4",
    "child": "M6 4v7a4 4 0 0 0 4 4h8M14 11l4 4-4 4",
    "publish": "M4 10v4h3l7 4V6L7 10zM17.5 9.5a4 4 0 0 1 0 5",
    "view": "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12z"
    "M12 14.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5z",
    "race": "M5 21V4h13l-2.5 4.5L18 13H5",
    "retry": "M20 11a8 8 0 1 0-2 6M20 4v7h-7",
    "search": "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM16 16l5 5",
    "key": "M8 17a5 5 0 1 0 0-10 5 5 0 0 0 0 10zM13 12h8v4M17 12v3",
    "calendar": "M4 6h16v14H4zM4 10h16M8 3v4M16 3v4",
    "fan": "M4 12h4M8 12l8-7h4M8 12h12M8 12l8 7h4",
    "stack": "M12 3 3 8l9 5 9-5zM3 12.5l9 5 9-5M3 17l9 5 9-5",
    "stream": "M3 7c3-3 6-3 9 0s6 3 9 0M3 13c3-3 6-3 9 0s6 3 9 0M3 19c3-3 6-3 9 0s6 3 9 0",
    "fork": "M6 3v18M6 12h6a5 5 0 0 0 5-5V4M13 7l4-4 4 4",
    "swap": "M4 8h14l-4-4M20 16H6l4 4",
    "dot": "M12 14a2 2 0 1 0 0-4 2 2 0 0 0 0 4z",
    "plus": "M12 5v14M5 12h14",
    "chevron": "M9 5l7 7-7 7",
    "copy": "M9 9h11v11H9zM5 15H4V4h11v1",
    "cloud-off": "M3 3l18 18M8 8a6 6 0 0 0-2 11h11M10.5 6.2A6 6 0 0 1 18 11a4 4 0 0 1 2.5 6.5",
}


def icon(name: str) -> h.Element:
    """A drawing beside a text; readers of the screen hear the text only."""
    return h.svg(".icon", viewBox="0 0 24 24", aria_hidden="true")[h.path(d=PATHS[name])]


def logo() -> h.Element:
    """Three moments on one wave: an event, what it moves, what comes of it."""
    return h.svg(".logo", viewBox="0 0 24 24", aria_hidden="true")[
        h.rect(width="24", height="24", rx="6.5", class_="plate"),
        h.path(d="M5 15.5c3.5 0 3.5-7 7-7s3.5 7 7 7"),
        h.circle(cx="5", cy="15.5", r="1.7"),
        h.circle(cx="12", cy="8.5", r="1.7", class_="now"),
        h.circle(cx="19", cy="15.5", r="1.7"),
    ]
