"""Whether a host is this very machine: what need not be https."""

import ipaddress


def is_loopback(host: str | None) -> bool:
    """Whether `host` is a loopback address or the name that stands for one."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
