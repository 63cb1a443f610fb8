// Package fleet is how several nodes act as one identity.
//
// One of them, the keeper, has the identity's primary key. The others are delegates: each proves with a one-time ticket that it may be one, is on the
// keeper's list from then on under an identity of its own, makes purpose keys, and has the keeper attest them for a limited time, again and again
// (identity.Keeper). None of them ever has the primary key. A delegate that is deleted gets no attestation any more; those that it has end within the
// lifetime that its ticket allowed.
//
// Peers see one identity: an attestation that a delegate shows is like the keeper's own.
package fleet
