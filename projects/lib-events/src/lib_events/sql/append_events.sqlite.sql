INSERT INTO events (id, source, type, subject, time, correlation, imported, count, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
