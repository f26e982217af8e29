UPDATE runs SET wakes = wakes + 1, wake_at = 0 FROM {rows} WHERE runs.id = rows.id AND runs.ended_at IS NULL
