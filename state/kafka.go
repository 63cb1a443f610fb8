package state

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"
)

// KafkaKey decrypts what one producer wrote for a node. The key is a secret.
type KafkaKey struct {
	// Address names the key: 32 hex digits.
	Address string `json:"address"`
	// Self and Peer are the identifiers of the consumer and of the producer.
	Self string `json:"self"`
	Peer string `json:"peer"`
	Key  []byte `json:"key"`
	// What an authority attested of the producer when the keys were exchanged; empty if nothing.
	Attributes map[string]string `json:"attributes,omitempty"`
	AttestedBy string            `json:"attested_by,omitempty"`
	ExpiresAt  time.Time         `json:"expires_at,omitzero"`
	CreatedAt  time.Time         `json:"created_at"`
}

type kafkaKeyFile struct {
	Version int `json:"version"`
	KafkaKey
}

// maxKafkaKeys bounds the keys of one node: a producer makes one for each partition whenever it starts.
const maxKafkaKeys = 100_000

func (d *Dir) kafkaKeyPath(node, address string) (string, error) {
	if err := CheckName("node", node); err != nil {
		return "", err
	}
	// Nothing else may become the name of a file.
	if raw, err := hex.DecodeString(address); err != nil || len(raw) != 16 || hex.EncodeToString(raw) != address {
		return "", &NotFoundError{Kind: "key", Name: address}
	}
	return d.file("nodes", node, "kafka_keys", address+".json"), nil
}

// PutKafkaKey stores a node's key; only the owner may read it.
func (d *Dir) PutKafkaKey(ctx context.Context, node string, k KafkaKey) error {
	path, err := d.kafkaKeyPath(node, k.Address)
	if err != nil {
		return err
	}
	return d.locked(ctx, func() error {
		if _, err := d.readNode(node); err != nil {
			return err
		}
		have, err := entries(d.file("nodes", node, "kafka_keys"))
		if err != nil {
			return err
		}
		if len(have) >= maxKafkaKeys {
			return fmt.Errorf("node %q holds %d keys of Kafka producers, and may not hold more", node, len(have))
		}
		return d.writeJSON(path, kafkaKeyFile{Version: fileVersion, KafkaKey: k})
	})
}

// KafkaKey returns a node's key by its address. The error is a NotFoundError if there is none.
func (d *Dir) KafkaKey(node, address string) (KafkaKey, error) {
	path, err := d.kafkaKeyPath(node, address)
	if err != nil {
		return KafkaKey{}, err
	}
	var f kafkaKeyFile
	err = d.readJSON(path, &f)
	if err == nil && f.Version == 0 {
		err = &NotFoundError{Kind: "key", Name: address}
	}
	return f.KafkaKey, err
}
