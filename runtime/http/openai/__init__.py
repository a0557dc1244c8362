"""OpenAI's API, as far as it completes, chats and embeds."""
