"""The Python clients of the Kafka suite: usage probe.py confluent|kafka-python BOOTSTRAP ACTION ARGUMENT... [KEY=VALUE]..."""

import sys
import time


def value(tag, i, size):
    v = f"{tag}-{i}-"
    return (v + "secret " * (max(size - len(v), 0) // 7 + 1)).encode()


def first(v):
    parts = v.split(b"-", 2)
    return b"-".join(parts[:2]) if len(parts) == 3 else b"unreadable"


def report(seen, n, size):
    print(f"consumed {len(seen)} different values, {size} bytes")
    if len(seen) != n or b"unreadable" in seen:
        raise SystemExit(f"wanted {n}")


class Confluent:
    def __init__(self, bootstrap, extra):
        self.base = {"bootstrap.servers": bootstrap, **extra}

    def producer(self, **more):
        from confluent_kafka import Producer
        return Producer({**self.base, **{k.replace("_", "."): v for k, v in more.items()}})

    def produce(self, topic, n, size, compression):
        p = self.producer(compression_type=compression, linger_ms=20, message_timeout_ms=150000)
        failed = []
        for i in range(n):
            while True:
                try:
                    p.produce(topic, key=f"key{i}", value=value(compression, i, size), on_delivery=lambda e, m: failed.append(e) if e else None)
                    break
                except BufferError:
                    p.poll(0.1)
            p.poll(0)
        if p.flush(160) or failed:
            raise SystemExit(f"error {failed[:1] or 'not in time'}")
        print("produced", n)

    def paced(self, topic, n, size):
        p = self.producer(linger_ms=0, message_timeout_ms=150000)
        failed = []
        for i in range(n):
            p.produce(topic, key=f"key{i}", value=value("paced", i, size), on_delivery=lambda e, m: failed.append(e) if e else None)
            p.poll(0.03)
        if p.flush(160) or failed:
            raise SystemExit(f"error {failed[:1] or 'not in time'}")
        print("produced", n)

    def consume(self, topic, n, group):
        from confluent_kafka import Consumer
        c = Consumer({**self.base, "group.id": group, "auto.offset.reset": "earliest", "isolation.level": "read_committed"})
        c.subscribe([topic])
        seen, size, end = set(), 0, time.time() + 160
        while len(seen) < n and time.time() < end:
            m = c.poll(0.5)
            if m is None:
                continue
            if m.error():
                print("error", m.error())
                if m.error().name() == "TOPIC_AUTHORIZATION_FAILED":
                    raise SystemExit(1)
                continue
            size += len(m.value())
            seen.add(first(m.value()))
        c.close()
        report(seen, n, size)

    def transact(self, topic, n):
        p = self.producer(transactional_id="probe-" + topic, compression_type="lz4")
        p.init_transactions(60)
        for tag in ("kept", "dropped", "kept2"):
            p.begin_transaction()
            for i in range(n):
                p.produce(topic, key=f"key{i}", value=value(tag, i, 100))
            p.flush(60)
            p.abort_transaction(60) if tag == "dropped" else p.commit_transaction(60)
        print("committed", 2 * n)

    def large(self, topic, size):
        p = self.producer(message_max_bytes=200000000, message_timeout_ms=120000)
        result, began = [], time.time()
        p.produce(topic, key="key", value=value("large", 0, size), on_delivery=lambda e, m: result.append(e))
        p.flush(130)
        if result[0]:
            print("refused", result[0].name(), "after", int(time.time() - began), "s")
        else:
            print("produced", size)

    def admin(self, topic, host):
        from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
        a = AdminClient(self.base)
        for f in a.create_topics([NewTopic(topic, 3, 3)]).values():
            f.result(60)
        brokers = a.list_topics(timeout=30).brokers.values()
        for b in brokers:
            if b.host != host:
                raise SystemExit(f"error a broker at {b.host}")
        end = time.time() + 30
        while True:  # until every broker has heard of it
            try:
                for f in a.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)]).values():
                    f.result(30)
                break
            except Exception:
                if time.time() > end:
                    raise
                time.sleep(0.3)
        for f in a.delete_topics([topic]).values():
            f.result(30)
        print("brokers", len(brokers))


class KafkaPython:
    def __init__(self, bootstrap, extra):
        self.base = {"bootstrap_servers": bootstrap, **{k.replace(".", "_"): v for k, v in extra.items()}}

    def producer(self, **more):
        from kafka import KafkaProducer
        return KafkaProducer(**{**self.base, **more})

    def produce(self, topic, n, size, compression):
        p = self.producer(compression_type=None if compression == "none" else compression, linger_ms=20, acks="all", retries=1000)
        sent = [p.send(topic, key=f"key{i}".encode(), value=value(compression, i, size)) for i in range(n)]
        for f in sent:
            f.get(150)
        p.close()
        print("produced", n)

    def paced(self, topic, n, size):
        p = self.producer(acks="all", retries=1000)
        sent = []
        for i in range(n):
            sent.append(p.send(topic, key=f"key{i}".encode(), value=value("paced", i, size)))
            time.sleep(0.03)
        for f in sent:
            f.get(150)
        p.close()
        print("produced", n)

    def consume(self, topic, n, group):
        from kafka import KafkaConsumer
        from kafka.errors import KafkaError
        c = KafkaConsumer(topic, group_id=group, auto_offset_reset="earliest", **self.base)
        seen, size, end = set(), 0, time.time() + 160
        while len(seen) < n and time.time() < end:
            try:
                polled = c.poll(500)
            except KafkaError as e:
                if not e.retriable:
                    raise
                print("error", type(e).__name__, e)  # such as that of a broker that was killed; the next poll asks another one
                continue
            for records in polled.values():
                for r in records:
                    size += len(r.value)
                    seen.add(first(r.value))
        c.close()
        report(seen, n, size)

    def large(self, topic, size):
        p = self.producer(max_request_size=200000000, buffer_memory=300000000) if sys.modules["kafka"].__version__ < "3" else self.producer(max_request_size=200000000)
        began = time.time()
        try:
            p.send(topic, key=b"key", value=value("large", 0, size)).get(120)
            print("produced", size)
        except Exception as e:
            print("refused", type(e).__name__, "after", int(time.time() - began), "s")

    def transact(self, topic, n):
        p = self.producer(transactional_id="probe-" + topic)
        p.init_transactions()
        for tag in ("kept", "dropped", "kept2"):
            p.begin_transaction()
            for i in range(n):
                p.send(topic, key=f"key{i}".encode(), value=value(tag, i, 100))
            p.flush()
            p.abort_transaction() if tag == "dropped" else p.commit_transaction()
        p.close()
        print("committed", 2 * n)

    def admin(self, topic, host):
        from kafka.admin import KafkaAdminClient, NewTopic
        a = KafkaAdminClient(**self.base)
        a.create_topics([NewTopic(name=topic, num_partitions=3, replication_factor=3)])
        brokers = a.describe_cluster()["brokers"]
        for b in brokers:
            if b["host"] != host:
                raise SystemExit(f"error a broker at {b}")
        a.delete_topics([topic])
        print("brokers", len(brokers))


def main():
    args = [a for a in sys.argv[1:] if "=" not in a]
    extra = dict(a.split("=", 1) for a in sys.argv[1:] if "=" in a)
    kind, bootstrap, action, *rest = args
    if kind == "kafka-python":
        import kafka  # noqa: F401
    client = (Confluent if kind == "confluent" else KafkaPython)(bootstrap, extra)
    try:
        getattr(client, action)(*[int(a) if a.isdigit() else a for a in rest])
    except SystemExit:
        raise
    except Exception as e:
        print("error", type(e).__name__, e)
        sys.exit(1)


main()
