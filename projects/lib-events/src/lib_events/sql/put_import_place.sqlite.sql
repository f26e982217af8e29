INSERT INTO import_places (source, sequence, consumer)
VALUES (?, ?, ?)
ON CONFLICT (source) DO UPDATE SET sequence = excluded.sequence, consumer = excluded.consumer
