"""The programs that may ask for tokens: what they are, how they prove it, and what they are told."""
