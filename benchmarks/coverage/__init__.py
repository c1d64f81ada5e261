"""How much of new text a knowledge tree holds, and from which hit rate on a lookup is faster than computing."""
