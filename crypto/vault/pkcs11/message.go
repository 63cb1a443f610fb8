package pkcs11

import "sallyport/crypto/vault"

// Operations of a Request.
const (
	OpCheck    = "check"    // the token is there and the PIN right
	OpGenerate = "generate" // make a key
	OpFind     = "find"     // a key by label or id
	OpSign     = "sign"
	OpDelete   = "delete"
)

// Request asks sallyport-pkcs11 to do one thing with a token. It is complete: nothing is remembered from one to the next.
type Request struct {
	Op     string `json:"op"`
	Module string `json:"module"`
	Token  URI    `json:"token"`
	PIN    []byte `json:"pin,omitempty"`
	// Algorithm of a key to make or to sign with.
	Algorithm vault.KeyAlgorithm `json:"algorithm"`
	// Label and ID name a key. Of one that is made, Label is what it is called.
	Label string `json:"label,omitempty"`
	ID    []byte `json:"id,omitempty"`
	Data  []byte `json:"data,omitempty"`
}

// Codes of a Response.
const (
	CodeOK        = ""
	CodeNoToken   = "no token"
	CodePIN       = "wrong PIN"
	CodePINLocked = "PIN locked"
	CodeNoKey     = "no such key"
	CodeKeyType   = "key of the wrong type"
	CodeAlgorithm = "no such algorithm"
	CodeModule    = "module"
	CodeFailed    = "failed"
)

// Response answers a Request.
type Response struct {
	Code string `json:"code,omitempty"`
	// Text says what the module said, for people.
	Text      string             `json:"text,omitempty"`
	Algorithm vault.KeyAlgorithm `json:"algorithm"`
	Public    []byte             `json:"public,omitempty"`
	ID        []byte             `json:"id,omitempty"`
	Signature []byte             `json:"signature,omitempty"`
}
