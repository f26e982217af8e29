DELETE FROM event_waits WHERE run = ? AND operation = ?
