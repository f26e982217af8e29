INSERT INTO events (id, source, type, subject, time, correlation, imported, count, body)
SELECT id, source, type, subject, time, correlation, imported, count, body FROM {rows}
ON CONFLICT (source, id) DO NOTHING
