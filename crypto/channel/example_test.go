package channel_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"fmt"

	"sallyport/crypto/channel"
)

// config makes a side with a fresh static key and a name in place of an identity.
func config(name string) channel.Config {
	static, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return channel.Config{
		Static: [32]byte(static.PublicKey().Bytes()),
		DH: func(peer [32]byte) (secret [32]byte, err error) {
			public, err := ecdh.X25519().NewPublicKey(peer[:])
			if err != nil {
				return secret, err
			}
			b, err := static.ECDH(public)
			copy(secret[:], b)
			return secret, err
		},
		Rand:    rand.Reader,
		Payload: func() ([]byte, error) { return []byte(name), nil },
		VerifyPeer: func(_ [32]byte, payload []byte) error {
			fmt.Printf("%s talks to %s\n", name, payload)
			return nil
		},
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func Example() {
	initiator, responder := channel.NewInitiator(config("alice")), channel.NewResponder(config("bob"))
	defer initiator.Wipe()
	defer responder.Wipe()
	message1, err := initiator.Start()
	check(err)
	message2, _, err := responder.Handle(message1)
	check(err)
	message3, _, err := initiator.Handle(message2)
	check(err)
	_, _, err = responder.Handle(message3)
	check(err)

	var sealer channel.Sealer
	var opener channel.Opener
	defer sealer.Wipe()
	defer opener.Wipe()
	ours, theirs := initiator.Keys(), responder.Keys()
	sealer.Init(&ours.Send)
	opener.Init(&theirs.Receive)
	ours.Wipe()
	theirs.Wipe()

	text := "hello"
	buf := make([]byte, len(text)+channel.Overhead)
	copy(buf[channel.CounterSize:], text)
	check(sealer.Seal(buf, buf[channel.CounterSize:][:len(text)]))
	plaintext, err := opener.Open(buf)
	check(err)
	fmt.Printf("%s\n", plaintext)
	// Output:
	// alice talks to bob
	// bob talks to alice
	// hello
}
