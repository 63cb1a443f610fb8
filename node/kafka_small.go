//go:build small

package node

// addKafka adds nothing: this program was built without Kafka portals.
func addKafka(*Node) {}
