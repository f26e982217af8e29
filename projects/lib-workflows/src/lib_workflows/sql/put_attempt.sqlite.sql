INSERT INTO attempts (run, operation, attempt, next_at, error, name) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (run, operation) DO UPDATE
SET attempt = excluded.attempt, next_at = excluded.next_at, error = excluded.error, name = excluded.name
