DELETE FROM event_waits USING {rows} WHERE event_waits.run = rows.run AND event_waits.operation = rows.operation
