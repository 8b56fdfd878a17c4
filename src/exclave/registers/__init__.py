"""What is kept alive: one port, one adapter a kind of register."""
