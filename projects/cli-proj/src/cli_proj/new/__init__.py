"""What `evs new` makes: names that are checked, templates that are filled in, places they go to whole or not at all."""
