DELETE FROM messages WHERE run = ? AND number = ?
