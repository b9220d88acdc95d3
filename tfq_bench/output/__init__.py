"""Results as text for terminals, Markdown, JUnit and GitHub."""
