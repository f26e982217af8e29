"""From the log to NATS JetStream and from there into the logs of other services; by whose account, and what it may."""
