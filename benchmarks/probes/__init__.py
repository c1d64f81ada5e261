"""What the time of an answer says about the miss cache; see `__main__`."""
