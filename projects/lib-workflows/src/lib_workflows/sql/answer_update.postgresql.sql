UPDATE updates SET status = rows.status, reply = rows.reply, ended_at = rows.ended_at
FROM {rows} WHERE updates.id = rows.id AND updates.run = rows.run AND updates.status = 'pending'
