INSERT INTO import_places (source, sequence)
SELECT source, max(sequence) FROM {rows} GROUP BY source
ON CONFLICT (source) DO UPDATE SET sequence = excluded.sequence
