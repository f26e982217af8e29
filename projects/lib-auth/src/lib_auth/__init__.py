"""What a service or a client needs to take part in sign-in: verify tokens, guard routes, log in, keep tokens."""
