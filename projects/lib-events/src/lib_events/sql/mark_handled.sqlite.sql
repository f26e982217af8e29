INSERT INTO handled_events (durable, position)
VALUES (?, ?)
ON CONFLICT (durable, position) DO NOTHING
