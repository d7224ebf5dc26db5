"""What `idi doctor` looks at, each with its remedy."""
