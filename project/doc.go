// Package project holds what a member needs to know about a project, which is the set-up that a relay, an authority and its members
// form together: the project as a JSON file and the enrollment ticket, a one-time invitation to become a member.
//
// Both carry the change histories of the project and of its authority. Parsing verifies them, so a *Project or *Ticket that this
// package returned names identities that hold together; a reader never has to check them again.
//
// A ticket is a bearer secret: whoever holds its code can become a member. Formatting a Code shows nothing of it, and no error
// contains it.
//
// Formats are described in docs/protocol/02 §6.
package project
