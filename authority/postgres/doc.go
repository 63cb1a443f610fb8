// Package postgres keeps the rows of an authority's store in PostgreSQL, so that several authorities have one store.
//
// Tables are in the first schema of the connection's search_path. Every writer locks the one row of authority_state first: as in a file, there is one
// writer at a time, so that revocations and the audit trail have no holes and no deadlock can be. What callers of one process want written at the same
// time is one transaction. No password comes into errors.
package postgres
