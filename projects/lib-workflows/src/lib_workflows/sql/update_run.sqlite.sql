UPDATE runs
SET status = CASE WHEN status = 'cancelling' AND ?1 IN ('running', 'waiting') THEN status ELSE ?1 END,
    owner = ?2, wake_at = CASE WHEN wakes > ?3 THEN 0 ELSE ?4 END, waiting_for = ?5,
    output = ?6, error = ?7, started_at = ?8, ended_at = ?9, tags = ?10
WHERE id = ?11
