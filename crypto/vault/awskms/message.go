package awskms

import (
	"time"

	"sallyport/crypto/vault"
)

// Program is the name of the program that speaks with KMS.
const Program = "sallyport-aws-kms"

// Bounds on a request: of one attempt, of the attempts together, and how many there are. Throttled requests, and those that got no answer, are sent
// again after growing pauses. Wait is how long the program's answer is waited for.
const (
	AttemptTimeout = 5 * time.Second
	TotalTimeout   = 20 * time.Second
	Attempts       = 5
	Wait           = TotalTimeout + 5*time.Second
)

// Operations of a Request.
const (
	OpCreate   = "create key"
	OpPublic   = "get public key"
	OpSign     = "sign"
	OpSchedule = "schedule deletion"
)

// Request asks the program to do one thing with KMS. It is complete: nothing is remembered from one to the next.
type Request struct {
	Op string `json:"op"`
	// ID is a key's id, ARN or alias; not of OpCreate.
	ID string `json:"id,omitempty"`
	// Data is what is signed: a message, or its SHA-256 if Hashed.
	Data   []byte `json:"data,omitempty"`
	Hashed bool   `json:"hashed,omitempty"`
}

// Codes of a Response.
const (
	CodeOK        = ""
	CodeNotFound  = "not found"
	CodeRefused   = "refused"
	CodeAlgorithm = "wrong algorithm"
	CodeAway      = "away"
)

// Response answers a Request.
type Response struct {
	Code string `json:"code,omitempty"`
	// Text says what was wrong, in one line for people.
	Text string `json:"text,omitempty"`
	ID   string `json:"id,omitempty"`
	// Public is the key of OpPublic, a SubjectPublicKeyInfo, and Signs whether it is for signatures; Signature is the answer to OpSign, in DER.
	Public    []byte `json:"public,omitempty"`
	Signs     bool   `json:"signs,omitempty"`
	Signature []byte `json:"signature,omitempty"`
}

// faults are the errors that codes stand for.
var faults = map[string]error{CodeNotFound: vault.ErrNotFound, CodeRefused: vault.ErrRefused, CodeAlgorithm: vault.ErrAlgorithm}
