UPDATE updates SET status = ?, reply = ?, ended_at = ? WHERE id = ? AND run = ? AND status = 'pending'
