"""Appends one event with a request that mohawk signs, and checks the server's signature of the answer.

Prints the status and the header that signed the request, which may be given to sign another one."""

import sys
import urllib.error
import urllib.request

from mohawk import Sender

url, key_id, key, used = sys.argv[1:]
body, content_type = '{"n": 1}', "application/json"
credentials = {"id": key_id, "key": key, "algorithm": "sha256"}
sender = Sender(credentials, url, "POST", content=body, content_type=content_type)
header = used or sender.request_header
request = urllib.request.Request(
    url, body.encode(), {"authorization": header, "content-type": content_type}, method="POST"
)
try:
    with urllib.request.urlopen(request) as answer:
        server = answer.headers["server-authorization"]
        sender.accept_response(server, content=answer.read(), content_type=answer.headers["content-type"])
        print(answer.status)
except urllib.error.HTTPError as error:
    print(error.code)
print(header)
