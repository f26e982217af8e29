INSERT INTO run_logs (run, number, at, level, logger, message, operation, attempt) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run, number) DO NOTHING
