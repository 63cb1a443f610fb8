//go:build small

// Package tpm stands for keys in a TPM 2.0 in a program that was built without them.
package tpm

import (
	"errors"

	"sallyport/crypto/vault"
)

// DefaultDevice is the kernel's TPM with a resource manager.
const DefaultDevice = "/dev/tpmrm0"

var errSmall = errors.New("this program was built without TPM vaults")

// Vault is keys in a TPM. There is none.
type Vault struct{ vault.Vault }

// Device returns nothing.
func (*Vault) Device() string { return "" }

// ParsePCRs reads nothing; Open says why.
func ParsePCRs(string) ([]uint, error) { return nil, nil }

// Open fails.
func Open(string, string, []uint) (*Vault, error) { return nil, errSmall }
