"""Uses a server as clients of okdata-sdk do: a login with a password, then the SDK's own clients."""

import sys
import time

from okdata.sdk.config import Config
from okdata.sdk.data.dataset import Dataset
from okdata.sdk.elasticsearch.queries import ElasticsearchQueries
from okdata.sdk.event.event_stream_client import EventStreamClient
from okdata.sdk.event.post_event import PostEvent
from okdata.sdk.webhook.client import WebhookClient
from requests.exceptions import HTTPError

base, user, password = sys.argv[1:]
config = Config(
    config={
        "env": "dev",
        "cacheCredentials": False,
        "username": user,
        "password": password,
        "client_id": None,
        "client_secret": None,
        "keycloakServerUrl": base,
        "keycloakRealm": "api-catalog",
        "tokenService": f"{base}/token-service/token",
        "datasetUrl": f"{base}/metadata/datasets",
        "elasticsearchQueryUrl": f"{base}/elasticsearch-queries",
        "eventCollectorUrl": base,
        "eventStreamUrl": f"{base}/streams",
        "permissionApiUrl": base,
    }
)


def same(found, expected):
    if found != expected:
        raise SystemExit(f"found {found!r}, not {expected!r}")


def refused(status, call, *args):
    try:
        answer = call(*args)
    except HTTPError as error:
        return same(error.response.status_code, status)
    raise SystemExit(f"answered {answer!r}, not {status}")


def wait_for(what, is_there):
    for _ in range(300):
        if is_there():
            return
        time.sleep(0.1)
    raise SystemExit(f"waited too long for {what}")


datasets = Dataset(config)
made = datasets.create_dataset({"title": "Bus positions", "accessRights": "restricted", "source": {"type": "event"}})
dataset = made["Id"]
same((dataset, made["Type"], made["state"]), ("bus-positions", "Dataset", "active"))
same(datasets.get_latest_version(dataset)["Id"], f"{dataset}/1")
changed = datasets.update_dataset(dataset, {"description": "Where they are"}, partial=True)
same((changed["title"], changed["description"]), ("Bus positions", "Where they are"))
same(datasets.update_dataset(dataset, changed), changed)
same(datasets.get_dataset(dataset), changed)
same([one["Id"] for one in datasets.get_datasets(filter="bus")], [dataset])
same(datasets.create_version(dataset, {"version": "2"})["Id"], f"{dataset}/2")
same(datasets.update_version(dataset, "2", {"version": "2", "note": "new"})["note"], "new")
same([one["version"] for one in datasets.get_versions(dataset)], ["1", "2"])
edition = datasets.create_edition(dataset, "1", {"edition": "2019-05-28T15:37:00+02:00"})
same(edition["Id"], f"{dataset}/1/20190528T133700")
edition = edition["Id"].split("/")[2]
update = {"edition": "2019-05-28T15:37:00+02:00", "description": "May"}
same(datasets.update_edition(dataset, "1", edition, update)["description"], "May")
same(datasets.get_latest_edition(dataset, "1"), datasets.get_edition(dataset, "1", edition))
distribution = datasets.create_distribution(dataset, "1", edition, {"filename": "a.csv"})["Id"].split("/")[3]
same(datasets.update_distribution(dataset, "1", edition, distribution, {"filename": "b.csv"})["filename"], "b.csv")
same(datasets.get_distribution(dataset, "1", edition, distribution)["filename"], "b.csv")
same(len(datasets.get_distributions(dataset, "1", edition)), 1)
refused(404, datasets.get_dataset, "nothing")
refused(400, datasets.create_dataset, {"title": "x", "accessRights": "nobody"})

streams = EventStreamClient(config)
same(streams.create_event_stream(dataset, "1")["status"], "CREATE_IN_PROGRESS")
refused(409, streams.create_event_stream, dataset, "1")
wait_for("the stream", lambda: streams.get_event_stream_info(dataset, "1")["status"] == "ACTIVE")
same(streams.get_event_stream_info(dataset, "1")["confidentiality"], "yellow")
same(streams.enable_sink(dataset, "1", "elasticsearch")["status"], "CREATE_IN_PROGRESS")
wait_for("the sink", lambda: streams.get_sink(dataset, "1", "elasticsearch")["status"] == "ACTIVE")
same([sink["type"] for sink in streams.get_sinks(dataset, "1")], ["elasticsearch"])
same(streams.enable_subscription(dataset, "1")["enabled"], True)
same(streams.get_subscribable(dataset, "1")["status"], "ACTIVE")
same(streams.disable_subscription(dataset, "1")["enabled"], False)

events = PostEvent(config)
same(events.post_event({"bus": 1}, dataset, "1"), {"message": "Ok"})
same(events.post_event([{"bus": 2}, {"bus": 3}], dataset, "1"), {"message": "Ok"})
refused(404, events.post_event, {"bus": 1}, "nothing", "1")
same(ElasticsearchQueries(config).event_stat(dataset)["last_hour"]["events"], 3.0)

webhooks = WebhookClient(config)
token = webhooks.create_webhook_token(dataset, "write")["token"]
same(webhooks.authorize_webhook_token(dataset, token, "write"), {"access": True, "reason": None})
same(webhooks.list_webhook_tokens(dataset)[0]["operation"], "write")
same(webhooks.delete_webhook_token(dataset, token), {"message": f"Deleted {token} for dataset {dataset}"})



def is_deleted():
    """Whether the stream could be deleted: it cannot while a sink is at work."""
    try:
        streams.delete_event_stream(dataset, "1")
    except HTTPError as error:
        same(error.response.status_code, 409)
        return False
    return True


streams.disable_sink(dataset, "1", "elasticsearch")
wait_for("the end of the stream", is_deleted)
same(streams.get_event_stream_info(dataset, "1")["deleted"], True)
print("all is as it should be")
