"""Events for URLs: their rows, a subscription for each, one signed request, and when to try again."""
