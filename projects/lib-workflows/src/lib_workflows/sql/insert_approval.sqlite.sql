INSERT INTO approvals (id, run, operation, workflow, name, text, addressee, about, asked_at, due_at, status) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending') ON CONFLICT (id) DO NOTHING
