"""Jobs as a user sees them: settings, submission, progress, result and trace."""
