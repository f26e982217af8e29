UPDATE runs SET wakes = wakes + 1, wake_at = 0 WHERE id = ? AND ended_at IS NULL
