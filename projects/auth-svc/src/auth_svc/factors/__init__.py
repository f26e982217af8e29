"""How people prove who they are beside the password, and what that is worth."""
