DELETE FROM messages USING {rows} WHERE messages.run = rows.run AND messages.number = rows.number
