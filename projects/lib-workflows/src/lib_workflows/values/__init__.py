"""What passes in and out of the database as text: payloads, errors, names, durations, ids; checked and encoded."""
