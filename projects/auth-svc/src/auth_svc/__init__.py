"""AuthService: an OAuth 2.1 and OpenID Connect provider whose changes are events."""
