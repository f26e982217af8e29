"""What a service promises of its events: the schema of each type, remembered, and the AsyncAPI document."""
