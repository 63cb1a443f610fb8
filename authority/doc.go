// Package authority is the member list of a project: who belongs to it and with which attributes, one-time codes (tickets) that let
// others join, and the credentials that members show to each other (docs/protocol/02 §5).
//
// It is a set of request handlers over a store and knows no socket: the node puts each handler behind the worker address of its
// name, inside a secure channel.
//
//	member            has a row in the store
//	enroller          member with the attribute ockam-role=enroller: manages members, issues codes
//	admin             may also make enrollers. Without an account authority every enroller is one.
//	account admin     identity for which Options.AccountAdmin returns true: admin, enroller and member at once
//	pre-trusted       member named in the configuration: its row is written again at every start
//
// Where the reference lets an enroller overwrite any row, this package is stricter: a pre-trusted row changes only at the hand of
// another pre-trusted identity or an account admin, and an enroller's row only at an admin's or its own.
//
// Codes are kept as SHA-256 hashes. The answer to a code that is used up or expired is the same as to one that never existed; the
// log, the store's audit trail and Events tell them apart.
package authority
