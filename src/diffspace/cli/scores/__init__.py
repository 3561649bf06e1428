"""What the commands that score have in common: data from anywhere, extractors, features, and what is made of them."""
