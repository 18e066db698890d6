"""Jobs from a user's side: settings, submission, progress, result and trace."""
