"""A producer and a reader of vehicle positions, as plain requests: the URLs and a token are all that is given."""

import base64
import json
import sys
import time

import requests

post_url, get_url, token = sys.argv[1:4]


def post(bus, position):
    body = {
        "StreamName": "GpsCoordinatesStream",
        "Data": base64.b64encode(json.dumps(position).encode("utf-8")).decode("utf-8"),
        "PartitionKey": bus,
    }
    headers = {"Content-Type": "application/json", "Authorization": token}
    answer = requests.post(post_url, json=body, headers=headers, timeout=10)
    return answer.status_code, answer.json()


for latitude in ("76.54321", "-1.00000"):
    answer = post("17", {"longitude": "12.34567", "latitude": latitude})
    assert answer == (200, {"message": "Success"}), answer

status, refused = post("17", {"longitude": "12.3", "latitude": "76.54321"})
assert status == 400 and refused["message"].startswith("longitude: "), refused

deadline = time.time() + 30
while True:
    # Nothing is presented, as by a browser.
    answer = requests.get(get_url, {"busId": "17"}, timeout=10)
    assert answer.status_code == 200, answer.text
    envelope = answer.json()
    assert envelope["statusCode"] == 200 and envelope["headers"] == {"Content-Type": "application/json"}, envelope
    position = json.loads(envelope["body"])
    if position.get("latitude") == "-1.00000":
        break
    assert time.time() < deadline, position
    time.sleep(0.05)
assert position["busId"] == "17" and position["longitude"] == "12.34567", position
assert abs(int(position["updatedAt"]) - time.time()) < 60, position

unknown = requests.get(get_url, {"busId": "18"}, timeout=10).json()
assert (unknown["statusCode"], unknown["body"]) == (200, "{}"), unknown
missing = requests.get(get_url, timeout=10)
assert missing.status_code == 200 and missing.json()["statusCode"] == 400, missing.text
assert json.loads(missing.json()["body"]) == {"error": "Param busId is required"}, missing.text
print("all is as it should be")
