INSERT INTO heartbeats (run, operation, progress, sent_at, name) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (run, operation) DO UPDATE
SET progress = excluded.progress, sent_at = excluded.sent_at, name = excluded.name
