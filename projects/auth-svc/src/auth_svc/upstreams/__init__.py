"""Other providers that people may sign in with."""
