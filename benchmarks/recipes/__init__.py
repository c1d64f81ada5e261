"""Recipes for making a base, tried beside the product's own."""
