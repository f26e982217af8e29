DELETE FROM attempts WHERE run = ? AND operation = ?
