"""What is kept of ended runs, for how long, where, and how much room it takes."""
