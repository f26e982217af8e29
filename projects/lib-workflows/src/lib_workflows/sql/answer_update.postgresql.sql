UPDATE updates SET status = first.status, reply = first.reply, ended_at = first.ended_at
FROM (SELECT DISTINCT ON (id, run) status, reply, ended_at, id, run FROM {rows} ORDER BY id, run, ended_at) AS first
WHERE updates.id = first.id AND updates.run = first.run AND updates.status = 'pending'
