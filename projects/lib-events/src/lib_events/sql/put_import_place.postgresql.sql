INSERT INTO import_places (source, sequence, consumer)
SELECT DISTINCT ON (source) source, sequence, consumer FROM {rows} ORDER BY source, sequence DESC
ON CONFLICT (source) DO UPDATE SET sequence = excluded.sequence, consumer = excluded.consumer
