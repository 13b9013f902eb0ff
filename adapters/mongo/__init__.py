"""The books in MongoDB: Blink's collections where Blink has them, `teller_*` where tellerd is alone."""

from adapters.mongo.store import MongoStore

__all__ = ["MongoStore"]
