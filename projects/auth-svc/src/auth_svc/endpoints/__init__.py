"""The OAuth 2.1 and OpenID Connect endpoints: one specification's wire per module, spoken by programs."""
