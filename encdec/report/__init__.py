"""What people read: scores, pictures, progress and logs."""
