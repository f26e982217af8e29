INSERT INTO run_logs (run, number, at, level, logger, message, operation, attempt)
SELECT run, number, at, level, logger, message, operation, attempt FROM {rows}
ON CONFLICT (run, number) DO NOTHING
