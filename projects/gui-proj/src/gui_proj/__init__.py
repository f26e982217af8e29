"""GUI: the web application people work in; tokens stay on the server."""
