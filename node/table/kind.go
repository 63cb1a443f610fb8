// Package table holds what a node has: for each kind of resource one table with its entries. A kind is a value that says how such
// a resource is checked, opened, changed in place, described and closed. The table does what is the same for all kinds: it keeps
// names apart, opens outside its lock, tries again what failed, writes down what there is, compares it with a configuration, and
// answers the administration interface.
//
// # Life of an entry
//
//	          Check fails: nothing is left        Open fails by command: nothing is left
//	request ─────────────────────────▶ opening ───────────────────────────▶ up / degraded / down, as Kind.Status says
//	                                     ▲  │ Open fails at a start or from a configuration
//	                                     │  ▼
//	                                     down, until the next try
//
// An entry's name is taken from the beginning of opening to the end of closing. One goroutine at a time opens, changes or closes an
// entry; lists do not wait for it.
package table

import (
	"context"

	"sallyport/node/resource"
)

// Kind describes a kind of resource. R is the type of requests, V what a request becomes when it is opened. Only Name, Noun, Key,
// Open and Close have to be set.
type Kind[R, V any] struct {
	// Name is the kind's name in configurations, on the command line and on disk; Noun is what messages call one of them.
	Name, Noun string
	// Path is where the administration interface has the kind; empty for nowhere.
	Path string
	// After are the kinds that are opened before this one, and closed after it.
	After []string
	// Key returns where a request has the name that tells it from others of its kind.
	Key func(*R) *string
	// Check refuses what can never be opened, with an error that matches admin.ErrInvalid, and completes the rest: names, defaults.
	// It changes nothing else. taken tells whether an entry has a name.
	Check func(ctx context.Context, r *R, taken func(name string) bool) error
	// Open opens what was asked for. It may block: it resolves, listens, dials. What it notes in o.Request is kept.
	Open func(ctx context.Context, o *Opening[R]) (V, error)
	// InPlace are the fields, by their flags, that Update changes without closing. Other changes close and open.
	InPlace []string
	// Update changes what is open from one request to another; after an error it is as it was.
	Update func(ctx context.Context, v V, from, to *R) error
	// Close ends it. The entry is removed whatever Close returns.
	Close func(ctx context.Context, v V) error
	// Ends tells that a stopping node has to close these; others end with its event loops.
	Ends bool
	// Status says how what is open is; nil means that it is up.
	Status func(v V) resource.Status
	// Describe is what lists show; nil shows the request.
	Describe func(Item[R, V]) any
	// Show is what is shown of one, and may ask others for it; nil shows what lists do.
	Show func(context.Context, Item[R, V]) any
	// Creating is called before a command creates an entry.
	Creating func(ctx context.Context, r *R) error
	// Created waits for what a command that created an entry should hear of. An error is a definite no; the entry stays.
	Created func(ctx context.Context, i Item[R, V]) error
	// Replaces tells that to create what exists changes it.
	Replaces bool
}

// Opening is what Kind.Open is given.
type Opening[R any] struct {
	Request R
	// Again tells that the resource was there before, in an earlier run of the node or before a failure.
	Again bool
}

// Item is a view of an entry at one moment.
type Item[R, V any] struct {
	Request R
	// Value is set if IsOpen is.
	Value  V
	IsOpen bool
	// FromFile tells that a configuration asked for it. Owner names the resource that it is part of, if it is.
	FromFile bool
	Owner    string
	Status   resource.Status

	refused   error
	tentative bool
}
