"""Running subscriptions: each handler with its durable place, its retries and what it gave up on."""
