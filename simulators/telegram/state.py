"""What the emulated Telegram remembers: chats, the bot's messages, the updates that wait for the bot.

Every group (a negative id) exists and has the bot as a member, so that a binding to any group can be tried;
a private chat (a positive id) exists once its person has written to the bot, as with the real one.
"""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

BOT_USER: dict[str, Any] = {
    "id": 1000000001,
    "is_bot": True,
    "first_name": "Countinghouse",
    "username": "countinghouse_simulated_bot",
    "can_join_groups": True,
    "can_read_all_group_messages": False,
    "supports_inline_queries": False,
}
MEMBER_USER_ID_DEFAULT = 700000001


@dataclass
class Webhook:
    """Where updates go instead of getUpdates; an empty url means nowhere."""

    url: str = ""
    secret_token: str = ""


@dataclass
class TelegramState:
    """All that is remembered, behind one lock; nothing outlives the process."""

    titles: dict[int, str] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    updates: list[dict[str, Any]] = field(default_factory=list)
    webhook: Webhook = field(default_factory=Webhook)
    last_message_id: int = 0
    last_update_id: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def chat(self, chat_id: int) -> dict[str, Any] | None:
        """Answer the chat as the Bot API shows it, or None where there is none."""
        if chat_id < 0:
            kind = "supergroup" if str(chat_id).startswith("-100") else "group"
            return {"id": chat_id, "type": kind, "title": self.titles.get(chat_id, f"Group {abs(chat_id)}")}
        if chat_id in self.titles:
            return {"id": chat_id, "type": "private", "first_name": self.titles[chat_id]}
        return None

    def name_chat(self, chat_id: int, title: str) -> None:
        """Give a chat its title; a private chat comes into being by it."""
        with self.changed:
            self.titles[chat_id] = title

    def deliver(self, chat: dict[str, Any], text: str, **more: Any) -> dict[str, Any]:
        """Put the bot's message into the chat and answer it as the Bot API does."""
        with self.changed:
            self.last_message_id += 1
            now = time.time()
            message = {
                "message_id": self.last_message_id,
                "from": BOT_USER,
                "chat": chat,
                "date": int(now),
                "text": text,
            }
            self.messages.append({**message, **more, "received_at": now})
            self.changed.notify_all()
            return message

    def member_writes(self, chat_id: int, text: str, user_id: int, username: str) -> dict[str, Any]:
        """Let a person write in a chat, and answer the update that tells the bot."""
        with self.changed:
            self.last_message_id += 1
            self.last_update_id += 1
            if chat_id > 0:
                self.titles.setdefault(chat_id, username)
            message: dict[str, Any] = {
                "message_id": self.last_message_id,
                "from": {"id": user_id, "is_bot": False, "first_name": username, "username": username},
                "chat": self.chat(chat_id),
                "date": int(time.time()),
                "text": text,
            }
            if text.startswith("/"):
                length = len(text.split(maxsplit=1)[0])
                message["entities"] = [{"type": "bot_command", "offset": 0, "length": length}]
            update = {"update_id": self.last_update_id, "message": message}
            if not self.webhook.url:
                self.updates.append(update)
            self.changed.notify_all()
            return update

    def updates_from(self, offset: int, limit: int, timeout_seconds: float) -> list[dict[str, Any]]:
        """Answer the updates from `offset` on, waiting for one; those below it are forgotten."""
        with self.changed:
            if offset > 0:
                self.updates = [update for update in self.updates if update["update_id"] >= offset]
            self.changed.wait_for(lambda: bool(self.updates), timeout=timeout_seconds)
            return self.updates[:limit]

    def messages_in(self, chat_id: int | None) -> list[dict[str, Any]]:
        """Answer the bot's messages in the order they came, of one chat or of all."""
        with self.changed:
            return [message for message in self.messages if chat_id in (None, message["chat"]["id"])]

    def forget(self) -> None:
        """Forget messages, updates, titles and the webhook."""
        with self.changed:
            self.messages.clear()
            self.updates.clear()
            self.titles.clear()
            self.webhook = Webhook()
