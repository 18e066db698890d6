"""How rows of tables and of other tools' files become chats and preference pairs. Pure: values in, examples out."""
