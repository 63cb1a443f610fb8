import java.time.Duration;
import java.util.*;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.serialization.*;

/** The Java client of the Kafka suite: usage Probe BOOTSTRAP ACTION ARGUMENT... [KEY=VALUE of the client's configuration]... */
public class Probe {
	static final Properties extra = new Properties();
	static String bootstrap;

	public static void main(String[] all) throws Exception {
		List<String> args = new ArrayList<>();
		for (String a : all) {
			int at = a.indexOf('=');
			if (at > 0) extra.put(a.substring(0, at), a.substring(at + 1));
			else args.add(a);
		}
		bootstrap = args.get(0);
		String topic = args.size() > 2 ? args.get(2) : "";
		try {
			switch (args.get(1)) {
				case "produce" -> produce(topic, Integer.parseInt(args.get(3)), Integer.parseInt(args.get(4)), args.get(5));
				case "consume" -> consume(topic, Integer.parseInt(args.get(3)), args.get(4));
				case "share" -> share(topic, Integer.parseInt(args.get(3)), args.get(4));
				case "transact" -> transact(topic, Integer.parseInt(args.get(3)));
				case "large" -> large(topic, Integer.parseInt(args.get(3)));
				case "admin" -> admin(topic, args.get(3));
				case "paced" -> paced(topic, Integer.parseInt(args.get(3)), Integer.parseInt(args.get(4)));
				default -> throw new IllegalArgumentException(args.get(1));
			}
		} catch (ExecutionException e) {
			fail(e.getCause());
		} catch (Throwable e) {
			fail(e);
		}
		System.out.flush();
		Runtime.getRuntime().halt(0);
	}

	static void fail(Throwable e) {
		System.out.println("error " + e.getClass().getSimpleName() + ": " + e.getMessage());
		System.out.flush();
		Runtime.getRuntime().halt(1);
	}

	static Properties with(Object... pairs) {
		Properties p = new Properties();
		p.put("bootstrap.servers", bootstrap);
		for (int i = 0; i < pairs.length; i += 2) p.put(pairs[i], pairs[i + 1]);
		p.putAll(extra);
		return p;
	}

	static String value(String tag, int i, int size) {
		StringBuilder b = new StringBuilder(tag + "-" + i + "-");
		while (b.length() < size) b.append("secret ");
		return b.toString();
	}

	static KafkaProducer<String, String> producer(Object... pairs) {
		return new KafkaProducer<>(with(pairs), new StringSerializer(), new StringSerializer());
	}

	static void produce(String topic, int n, int size, String compression) throws Exception {
		try (KafkaProducer<String, String> p = producer("compression.type", compression, "linger.ms", "20", "delivery.timeout.ms", "150000")) {
			List<java.util.concurrent.Future<RecordMetadata>> sent = new ArrayList<>();
			for (int i = 0; i < n; i++) sent.add(p.send(new ProducerRecord<>(topic, "key" + i, value(compression, i, size))));
			for (var f : sent) f.get(150, TimeUnit.SECONDS);
		}
		System.out.println("produced " + n);
	}

	static void paced(String topic, int n, int size) throws Exception {
		try (KafkaProducer<String, String> p = producer("linger.ms", "0", "delivery.timeout.ms", "150000")) {
			List<java.util.concurrent.Future<RecordMetadata>> sent = new ArrayList<>();
			for (int i = 0; i < n; i++) {
				sent.add(p.send(new ProducerRecord<>(topic, "key" + i, value("paced", i, size))));
				Thread.sleep(30);
			}
			for (var f : sent) f.get(150, TimeUnit.SECONDS);
		}
		System.out.println("produced " + n);
	}

	static void consume(String topic, int n, String group) {
		Set<String> seen = new HashSet<>();
		long bytes = 0;
		try (KafkaConsumer<String, String> c = new KafkaConsumer<>(with("group.id", group, "auto.offset.reset", "earliest", "isolation.level", "read_committed"),
				new StringDeserializer(), new StringDeserializer())) {
			c.subscribe(List.of(topic));
			long end = System.currentTimeMillis() + 160_000;
			while (seen.size() < n && System.currentTimeMillis() < end)
				for (ConsumerRecord<String, String> r : c.poll(Duration.ofMillis(500))) {
					bytes += r.value().length();
					seen.add(first(r.value()));
				}
			c.commitSync();
		}
		report(seen, n, bytes);
	}

	static String first(String value) {
		String[] parts = value.split("-", 3);
		return parts.length < 3 ? "unreadable" : parts[0] + "-" + parts[1];
	}

	static void report(Set<String> seen, int n, long bytes) {
		System.out.println("consumed " + seen.size() + " different values, " + bytes + " bytes");
		if (seen.size() != n || seen.contains("unreadable")) throw new IllegalStateException("wanted " + n);
	}

	static void share(String topic, int n, String group) throws Exception {
		Admin a = Admin.create(with());
		Map<ConfigResource, Collection<AlterConfigOp>> ops = Map.of(new ConfigResource(ConfigResource.Type.forId((byte) 32), group),
			List.of(new AlterConfigOp(new ConfigEntry("share.auto.offset.reset", "earliest"), AlterConfigOp.OpType.SET)));
		a.incrementalAlterConfigs(ops).all().get(30, TimeUnit.SECONDS);
		a.close();
		Set<String> seen = new HashSet<>();
		long bytes = 0;
		// By reflection, as clients before 4.1 do not have it.
		Class<?> type = Class.forName("org.apache.kafka.clients.consumer.KafkaShareConsumer");
		Object c = type.getConstructor(Properties.class, Deserializer.class, Deserializer.class).newInstance(with("group.id", group), new StringDeserializer(), new StringDeserializer());
		type.getMethod("subscribe", Collection.class).invoke(c, List.of(topic));
		long end = System.currentTimeMillis() + 160_000;
		while (seen.size() < n && System.currentTimeMillis() < end) {
			ConsumerRecords<?, ?> records = (ConsumerRecords<?, ?>) type.getMethod("poll", Duration.class).invoke(c, Duration.ofMillis(500));
			for (ConsumerRecord<?, ?> r : records) {
				bytes += ((String) r.value()).length();
				seen.add(first((String) r.value()));
			}
		}
		type.getMethod("close").invoke(c);
		report(seen, n, bytes);
	}

	static void transact(String topic, int n) throws Exception {
		try (KafkaProducer<String, String> p = producer("transactional.id", "probe-" + topic, "compression.type", "lz4", "max.block.ms", "60000")) {
			p.initTransactions();
			for (String tag : new String[] {"kept", "dropped", "kept2"}) {
				p.beginTransaction();
				for (int i = 0; i < n; i++) p.send(new ProducerRecord<>(topic, "key" + i, value(tag, i, 100)));
				p.flush();
				if (tag.equals("dropped")) p.abortTransaction();
				else p.commitTransaction();
			}
		}
		System.out.println("committed " + 2 * n);
	}

	static void large(String topic, int size) throws Exception {
		try (KafkaProducer<String, String> p = producer("max.request.size", "200000000", "buffer.memory", "300000000", "delivery.timeout.ms", "120000")) {
			long began = System.currentTimeMillis();
			try {
				p.send(new ProducerRecord<>(topic, "key", value("large", 0, size))).get(120, TimeUnit.SECONDS);
				System.out.println("produced " + size);
			} catch (ExecutionException e) {
				System.out.println("refused " + e.getCause().getClass().getSimpleName() + " after " + (System.currentTimeMillis() - began) / 1000 + " s");
			}
		}
	}

	static void admin(String topic, String host) throws Exception {
		try (Admin a = Admin.create(with())) {
			a.createTopics(List.of(new NewTopic(topic, 3, (short) 3))).all().get(60, TimeUnit.SECONDS);
			Collection<Node> nodes = a.describeCluster().nodes().get(30, TimeUnit.SECONDS);
			for (Node node : nodes) if (!node.host().equals(host)) throw new IllegalStateException("a broker at " + node);
			long end = System.currentTimeMillis() + 30_000;
			while (!a.listTopics().names().get(30, TimeUnit.SECONDS).contains(topic)) if (System.currentTimeMillis() > end) throw new IllegalStateException("no topic");
			var d = a.describeTopics(List.of(topic)).allTopicNames().get(30, TimeUnit.SECONDS).get(topic);
			for (var part : d.partitions()) if (!part.leader().host().equals(host)) throw new IllegalStateException("a leader at " + part.leader());
			a.describeConfigs(List.of(new ConfigResource(ConfigResource.Type.TOPIC, topic))).all().get(30, TimeUnit.SECONDS);
			a.describeMetadataQuorum().quorumInfo().get(30, TimeUnit.SECONDS);
			a.describeFeatures().featureMetadata().get(30, TimeUnit.SECONDS);
			a.listConsumerGroups().all().get(30, TimeUnit.SECONDS);
			a.describeAcls(org.apache.kafka.common.acl.AclBindingFilter.ANY).values().get(30, TimeUnit.SECONDS);
			a.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all().get(30, TimeUnit.SECONDS);
			a.deleteTopics(List.of(topic)).all().get(30, TimeUnit.SECONDS);
			System.out.println("brokers " + nodes.size());
		}
	}
}
