INSERT INTO events (id, source, type, subject, time, correlation, imported, count, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (source, id) DO NOTHING
