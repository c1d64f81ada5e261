"""How much of new text a knowledge tree holds, what a drift does to that, and when looking up pays."""
