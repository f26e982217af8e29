"""Events for whoever waits: what runs wait for, and matching it with what was published."""
