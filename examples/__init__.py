"""What HMI does, on real models and real text: `demo` is what `hmi demo` runs; the scripts beside it are short."""
