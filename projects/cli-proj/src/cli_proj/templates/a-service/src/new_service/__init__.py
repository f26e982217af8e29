"""new-service: greets whoever may be greeted."""
