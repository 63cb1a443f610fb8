package channel

import (
	"crypto/hkdf"

	"github.com/flynn/noise"
)

// protocolName is the name on the wire. It is not the standard Noise name, which is why the symmetric state is written here, on
// flynn/noise's cipher suite; a test holds it against flynn/noise's own handshake under the standard name.
const protocolName = "OCKAM_XX_25519_AES256_GCM_SHA256"

const (
	keySize = 32
	tagSize = 16
)

// symmetric is Noise's symmetric state (Noise specification §5.2). It is a value: a message is worked on in a copy that is kept
// only if the whole message is good.
type symmetric struct {
	ck, h, k [keySize]byte
	n        uint64
}

// init begins a transcript. A name of 32 bytes is the first hash as it is, a shorter one is padded with zeros; longer ones do not
// occur. The prologue is empty but mixed in.
func (s *symmetric) init(name string) {
	*s = symmetric{}
	copy(s.ck[:], name)
	s.h = s.ck
	s.mixHash(nil)
}

func (s *symmetric) mixHash(data []byte) {
	d := noise.HashSHA256.Hash()
	d.Write(s.h[:])
	d.Write(data)
	d.Sum(s.h[:0])
}

// expand is HKDF-SHA256 with empty info and two outputs, which may be where its inputs are.
func expand(ck, input []byte, a, b *[keySize]byte) {
	out, err := hkdf.Key(noise.HashSHA256.Hash, input, ck, "", 2*keySize)
	if err != nil {
		panic(err) // 64 bytes are never too many
	}
	copy(a[:], out)
	copy(b[:], out[keySize:])
	clear(out)
}

func (s *symmetric) mixKey(secret []byte) {
	expand(s.ck[:], secret, &s.ck, &s.k)
	s.n = 0
}

// encrypt is EncryptAndHash. It appends to out.
func (s *symmetric) encrypt(out, plaintext []byte) []byte {
	at := len(out)
	out = noise.CipherAESGCM.Cipher(s.k).Encrypt(out, s.n, s.h[:], plaintext)
	s.mixHash(out[at:])
	s.n++
	return out
}

// decrypt is DecryptAndHash. It leaves ciphertext as it is.
func (s *symmetric) decrypt(ciphertext []byte) ([]byte, error) {
	plaintext, err := noise.CipherAESGCM.Cipher(s.k).Decrypt(nil, s.n, s.h[:], ciphertext)
	if err != nil {
		return nil, ErrHandshake
	}
	s.mixHash(ciphertext)
	s.n++
	return plaintext, nil
}

// split derives Noise's two keys.
func (s *symmetric) split(k1, k2 *[keySize]byte) { expand(s.ck[:], nil, k1, k2) }
