INSERT INTO history (run, position, operation, kind, name, status, attempt, started_at, ended_at, input, output, error, meta, voided)
SELECT run, position, operation, kind, name, status, attempt, started_at, ended_at, input, output, error, meta, 0 FROM {rows}
