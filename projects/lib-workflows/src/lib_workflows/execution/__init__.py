"""One run at work: its coroutine is driven, what it asks for is performed and recorded, and how it ends."""
