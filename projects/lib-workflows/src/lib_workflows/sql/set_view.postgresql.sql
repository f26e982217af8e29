INSERT INTO views (run, name, value, position, updated_at)
SELECT DISTINCT ON (run, name) run, name, value, position, updated_at FROM {rows} ORDER BY run, name, position DESC
ON CONFLICT (run, name) DO UPDATE
SET value = excluded.value, position = excluded.position, updated_at = excluded.updated_at
