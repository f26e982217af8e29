INSERT INTO heartbeats (run, operation, progress, sent_at, name)
SELECT DISTINCT ON (run, operation) run, operation, progress, sent_at, name FROM {rows} ORDER BY run, operation, sent_at DESC
ON CONFLICT (run, operation) DO UPDATE
SET progress = excluded.progress, sent_at = excluded.sent_at, name = excluded.name
