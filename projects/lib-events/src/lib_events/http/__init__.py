"""HTTP on both sides: serving with limits and health, asking checked addresses only, events in requests."""
