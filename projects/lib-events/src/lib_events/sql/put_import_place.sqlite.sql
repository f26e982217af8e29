INSERT INTO import_places (source, sequence)
VALUES (?, ?)
ON CONFLICT (source) DO UPDATE SET sequence = excluded.sequence
