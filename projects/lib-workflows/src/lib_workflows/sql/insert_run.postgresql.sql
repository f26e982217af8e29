INSERT INTO runs (id, workflow, version, queue, priority, status, owner, input, principal, principal_name, tags, correlation_id, causation_id, traceparent, parent, parent_operation, wake_at, deadline_at, created_at, started_at, depth, queue_key, deadline_micros, wakes, look_back_position)
SELECT id, workflow, version, queue, priority, status, owner, input, principal, principal_name, tags, correlation_id, causation_id, traceparent, parent, parent_operation, wake_at, deadline_at, created_at, started_at, depth, queue_key, deadline_micros, 0, (
    -- up to what is committed, placed or not: see `committed_position` and START_ROWS of lib_events
    SELECT placed_position + COALESCE((
        SELECT SUM(count) FROM (
            SELECT count FROM events WHERE last_position IS NULL
                AND sequence > COALESCE((SELECT sequence FROM events WHERE last_position = placed_position), 0)
            LIMIT 50000
        ) AS unplaced
    ), 0) FROM event_log_state
) FROM {rows}
ON CONFLICT (id) DO NOTHING
