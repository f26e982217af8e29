"""What people do in a browser: one module per room, which reads its forms and acts on them; `pages` draws them."""
