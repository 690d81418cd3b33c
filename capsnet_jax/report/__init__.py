"""What a person reads: tables and predictions."""
