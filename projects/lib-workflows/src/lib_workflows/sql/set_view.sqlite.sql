INSERT INTO views (run, name, value, position, updated_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (run, name) DO UPDATE
SET value = excluded.value, position = excluded.position, updated_at = excluded.updated_at
