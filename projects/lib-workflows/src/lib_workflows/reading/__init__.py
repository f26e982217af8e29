"""The read side: runs, their histories and what they have undone, for whoever may see them."""
