"""Sends a message of each type with Segment's published Python library: HOST WRITE_KEY."""

import sys

from segment.analytics.client import Client

host, key = sys.argv[1:]
failed = []
analytics = Client(key, host=host, gzip=True, on_error=lambda error, items: failed.append(str(error)))
analytics.identify("py-user", {"email": "a@example.com", "plan": "free"})
analytics.track("py-user", "Item Bought", {"price": 1.5})
analytics.page("py-user", "shop", "Home")
analytics.screen("py-user", "app", "Start")
analytics.group("py-user", "company", {"size": 3})
analytics.alias("py-cookie", "py-user")
for number in range(200):
    analytics.track("py-user", "Counted", {"n": number})
analytics.flush()
analytics.shutdown()
print(failed or "all is as it should be")
