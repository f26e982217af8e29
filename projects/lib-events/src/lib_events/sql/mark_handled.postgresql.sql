INSERT INTO handled_events (durable, position)
SELECT durable, position FROM {rows}
ON CONFLICT (durable, position) DO NOTHING
