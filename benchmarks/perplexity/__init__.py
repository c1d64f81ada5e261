"""What looking a decoder's lower layers up costs in perplexity: `python -m benchmarks.perplexity`."""
