// Package kafka lets Kafka clients reach a cluster through portals (docs/protocol/03 §5). A cluster tells its clients where each of its
// brokers is, so one portal is not enough: what the brokers say of themselves is rewritten on the inlet's side to lead to one inlet for each
// broker, and read on the outlet's side, where there is one outlet for each. On the way the values of records can be encrypted by the
// producer's inlet for the consumer's, so that neither brokers nor relays can read them.
//
// The package reads and writes bytes and knows neither sockets nor nodes: [Inlet] and [Outlet] make the filters of
// portal/interceptor. Messages are rewritten field by field. What has no need to change stays as it came, byte for byte.
//
// With content encryption, nothing passes that was not understood: requests are refused that the package does not know, or knows in another
// version than the one asked for, as they might carry records. What a broker offers is reduced to what the package knows.
package kafka
