"""What operators see: metrics and the audit log."""
