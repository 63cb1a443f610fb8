// Package influxdb leases tokens of an InfluxDB 2 to members of a project (docs/protocol/03 §5, end).
//
// A Manager runs beside an outlet. It makes a token for whoever asks, each with the same permissions, and revokes it when it has
// expired: InfluxDB's own tokens do not expire. What it must know of a token, for whom it is and until when, is in the token's
// description in InfluxDB, so that it survives a restart. A Client asks a Manager; Refresh keeps a lease for an inlet.
package influxdb
