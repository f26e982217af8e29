"""Where steps run: on the loop, in threads, in processes; one attempt at a time."""
