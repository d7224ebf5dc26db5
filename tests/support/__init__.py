"""What tests share: requirement names, scale, parts that may be missing here."""
