"""What joins subiso to other libraries. Each module is optional: the core imports none of them."""
