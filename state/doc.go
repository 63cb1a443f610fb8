// Package state keeps what one user's commands and nodes share: identities by name, vaults, nodes and their resources, projects and
// credentials, all in one directory.
//
// Everything is a small file. A change is made under a lock that excludes other processes and goroutines, and replaces the file as
// a whole (temporary file, fsync, rename, fsync of the directory): a crash leaves either the old or the new content. Readers take
// no lock. Opening the directory reads nothing, so that a command that needs one file pays for one file.
//
// Layout (directories 0700, files 0600):
//
//	lock                       the lock; empty
//	identities.json            named identities
//	histories/IDENTIFIER       change history, CBOR
//	purpose_keys/IDENTIFIER-P  attestation of purpose P, CBOR
//	vaults.json                vaults
//	vaults/NAME/               keys, unless the vault lies elsewhere
//	nodes.json                 which node is the default
//	nodes/NAME/node.json       node record
//	nodes/NAME/resources.json  what to start again with the node
//	nodes/NAME/                logs and admin socket
//	projects.json              projects
//	credentials/HASH.json      cached credentials
//
// The first identity, vault, node and project becomes the default of its kind. When the default is deleted and exactly one other is
// left, that one becomes the default; otherwise nothing is chosen behind the user's back.
package state
