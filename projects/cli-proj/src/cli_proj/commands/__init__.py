"""One module per noun or command of `evs`."""
