"""Knowledge trees at scale."""
