UPDATE updates SET status = ?, reply = ?, ended_at = ? WHERE id = ? AND status = 'pending'
