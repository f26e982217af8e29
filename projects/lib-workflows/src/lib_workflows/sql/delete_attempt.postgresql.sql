DELETE FROM attempts USING {rows} WHERE attempts.run = rows.run AND attempts.operation = rows.operation
