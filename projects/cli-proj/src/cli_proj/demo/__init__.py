"""`evs demo`: the whole product at work, driven from outside through its real pages and interfaces."""
