package pkcs11

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"sallyport/crypto/vault"
)

// maxMessage bounds a message between the two programs, in bytes.
const maxMessage = 64 << 10

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

// WriteMessage writes a message: four bytes of length, big-endian, and JSON.
func WriteMessage(w io.Writer, m any) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	defer clear(b) // it may hold a PIN
	if len(b) > maxMessage {
		return fmt.Errorf("pkcs11: a message of %d bytes, at most %d", len(b), maxMessage)
	}
	out := append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...)
	defer clear(out)
	_, err = w.Write(out)
	return err
}

// ReadMessage reads one. The error is io.EOF if there is no more.
func ReadMessage(r io.Reader, m any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxMessage {
		return fmt.Errorf("pkcs11: a message of %d bytes, at most %d", n, maxMessage)
	}
	b := make([]byte, n)
	defer clear(b)
	if _, err := io.ReadFull(r, b); err != nil {
		return fmt.Errorf("pkcs11: a message that is cut short: %w", err)
	}
	return json.Unmarshal(b, m)
}
