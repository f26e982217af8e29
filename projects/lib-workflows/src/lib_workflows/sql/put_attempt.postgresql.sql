INSERT INTO attempts (run, operation, attempt, next_at, error, name)
SELECT DISTINCT ON (run, operation) run, operation, attempt, next_at, error, name FROM {rows} ORDER BY run, operation, attempt DESC
ON CONFLICT (run, operation) DO UPDATE
SET attempt = excluded.attempt, next_at = excluded.next_at, error = excluded.error, name = excluded.name
