INSERT INTO runs (id, workflow, version, queue, priority, status, owner, input, principal, principal_name, tags, correlation_id, causation_id, traceparent, parent, parent_operation, wake_at, deadline_at, created_at, started_at, depth, queue_key, deadline_micros, wakes, look_back_position)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, (SELECT placed_position FROM event_log_state WHERE id = 1))
ON CONFLICT (id) DO NOTHING
