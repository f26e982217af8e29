"""What people do with their accounts, and what is kept of them."""
