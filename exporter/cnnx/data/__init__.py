"""Pictures: where they come from (`sets`), how they become crops (`crops`), and numbers (`normalize`)."""
