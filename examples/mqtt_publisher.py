"""Reads what ``mer-run --json`` prints of a stream, and publishes it to an MQTT broker.

mer-run ia-compact-int8 /dev/video0 --json | python examples/mqtt_publisher.py HOST[:PORT]

It needs ``pip install paho-mqtt``. Topics:

* ``mer/answer``: each answer's JSON line;
* ``mer/source``: each state of a source, retained, so that who subscribes later knows it;
* ``mer/online``: ``true`` while this runs, retained; the broker itself says ``false`` if it dies.
"""

import json
import sys
from collections.abc import Iterable
from threading import Event
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

ROOT = "mer"
ONLINE = f"{ROOT}/online"
#: Seconds that a broker may take to let us in, and the last messages to be sent.
PATIENCE, FAREWELL = 10.0, 5.0


def connect(host: str, port: int = 1883) -> Client:
    """A client that connects again by itself where a broker is lost.

    Raises:
        OSError: the broker can't be reached.
    """
    client = Client(CallbackAPIVersion.VERSION2)
    client.will_set(ONLINE, "false", qos=1, retain=True)
    connected = Event()

    def tell_online(client: Client, *_: Any) -> None:
        client.publish(ONLINE, "true", qos=1, retain=True)
        connected.set()

    client.on_connect = tell_online
    client.connect(host, port)
    client.loop_start()
    if not connected.wait(PATIENCE):
        raise TimeoutError(f"the broker says nothing for {PATIENCE:g} s")
    return client


def publish(client: Client, lines: Iterable[str]) -> None:
    """Publish every line, until there are no more."""
    for line in lines:
        message = json.loads(line)
        if "label" in message:
            client.publish(f"{ROOT}/answer", line.strip(), qos=0)
        elif "state" in message:
            client.publish(f"{ROOT}/source", line.strip(), qos=1, retain=True)
    client.publish(ONLINE, "false", qos=1, retain=True).wait_for_publish(FAREWELL)
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: mer-run ... --json | python mqtt_publisher.py HOST[:PORT]")
    host, _, port = sys.argv[1].partition(":")
    try:
        broker = connect(host, int(port or 1883))
    except OSError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
    publish(broker, sys.stdin)
