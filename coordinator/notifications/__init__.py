"""Events sent out: to webhooks, and to a message bus in the words of Cinder."""
