INSERT INTO history (run, position, operation, kind, name, status, attempt, started_at, ended_at, input, output, error, meta, voided)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)
