"""What HMI does, shown on real models and real text."""
