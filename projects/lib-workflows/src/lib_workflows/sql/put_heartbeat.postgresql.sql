INSERT INTO heartbeats (run, operation, progress, sent_at)
SELECT DISTINCT ON (run, operation) run, operation, progress, sent_at FROM {rows} ORDER BY run, operation, sent_at DESC
ON CONFLICT (run, operation) DO UPDATE SET progress = excluded.progress, sent_at = excluded.sent_at
