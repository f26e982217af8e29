UPDATE runs
SET status = CASE
        WHEN runs.status = 'cancelling' AND rows.status IN ('running', 'waiting') THEN runs.status
        ELSE rows.status
    END,
    owner = rows.owner, wake_at = CASE WHEN runs.wakes > rows.seen THEN 0 ELSE rows.wake_at END,
    waiting_for = rows.waiting_for, output = rows.output, error = rows.error,
    started_at = rows.started_at, ended_at = rows.ended_at, tags = rows.tags
FROM {rows}
WHERE runs.id = rows.id
