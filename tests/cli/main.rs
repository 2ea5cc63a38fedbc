//! Every command as a conversation.
