//go:build !small

// Package tpm keeps signing keys, of P-256, in a TPM 2.0. A key is made under the storage root key, which stays in the TPM; what leaves it is encrypted
// for it, and lies in the files of a directory. A key may be bound to PCRs: it signs only while the machine is in the state in which the key was made.
package tpm

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"sallyport/crypto/vault"
)

// DefaultDevice is the kernel's TPM with a resource manager.
const DefaultDevice = "/dev/tpmrm0"

// parent is the persistent handle of the storage root key, by the TCG's provisioning guidance. It is made if there is none.
const parent = tpm2.TPMHandle(0x81000001)

// busy is how long another user of a TPM without a resource manager is waited for.
const busy = 5 * time.Second

var _ vault.Vault = (*Vault)(nil)

// Vault is keys in a TPM.
type Vault struct {
	records vault.Records
	device  string
	pcrs    []uint
	mu      sync.Mutex // a TPM does one thing at a time
}

// ParsePCRs reads a list such as "0,2,7".
func ParsePCRs(text string) (pcrs []uint, err error) {
	if text == "" {
		return nil, nil
	}
	seen := map[uint64]bool{}
	for _, field := range strings.Split(text, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(field), 10, 8)
		if err != nil || n > 23 || seen[n] {
			return nil, fmt.Errorf("PCRs are numbers from 0 to 23, each once, such as 0,2,7, not %q", text)
		}
		seen[n] = true
		pcrs = append(pcrs, uint(n))
	}
	return pcrs, nil
}

// Open makes a vault of a TPM: a device, or a Unix socket such as swtpm's. Keys that it makes are bound to the PCRs (SHA-256), if any.
func Open(records, device string, pcrs []uint) (*Vault, error) {
	r, err := vault.OpenRecords(records)
	if err != nil {
		return nil, err
	}
	if device == "" {
		device = DefaultDevice
	}
	return &Vault{records: r, device: device, pcrs: pcrs}, nil
}

// Device returns the path of the TPM.
func (v *Vault) Device() string { return v.device }

// with opens the TPM for one piece of work.
func (v *Vault) with(ctx context.Context, what string, work func(t transport.TPM, srk tpm2.NamedHandle) error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	info, err := os.Stat(v.device)
	if err != nil {
		return v.explain(what, err)
	}
	var t transport.TPMCloser
	for end := time.Now().Add(busy); ; time.Sleep(50 * time.Millisecond) {
		if info.Mode()&fs.ModeSocket != 0 {
			t, err = linuxudstpm.Open(v.device)
		} else {
			t, err = linuxtpm.Open(v.device)
		}
		if err == nil || errors.Is(err, fs.ErrPermission) || time.Now().After(end) || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return v.explain(what, err)
	}
	defer t.Close()
	srk, err := root(t)
	if err == nil {
		err = work(t, srk)
	}
	return v.explain(what, err)
}

// root returns the storage root key, and makes it persistent if there is none.
func root(t transport.TPM) (tpm2.NamedHandle, error) {
	read := tpm2.ReadPublic{ObjectHandle: parent}
	if r, err := read.Execute(t); err == nil {
		return tpm2.NamedHandle{Handle: parent, Name: r.Name}, nil
	} else if !errors.Is(err, tpm2.TPMRCHandle) {
		return tpm2.NamedHandle{}, err
	}
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(t)
	if err != nil {
		return tpm2.NamedHandle{}, fmt.Errorf("make the storage root key: %w", err)
	}
	_, err = tpm2.EvictControl{
		Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name}, PersistentHandle: parent,
	}.Execute(t)
	flush(t, made.ObjectHandle)
	if err != nil {
		return tpm2.NamedHandle{}, fmt.Errorf("keep the storage root key: %w", err)
	}
	return tpm2.NamedHandle{Handle: parent, Name: made.Name}, nil
}

func flush(t transport.TPM, h tpm2.TPMHandle) {
	_, _ = tpm2.FlushContext{FlushHandle: h}.Execute(t)
}

// explain turns an error into one line with what to do.
func (v *Vault) explain(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no TPM at %s (--tpm-device names another)", vault.ErrAway, v.device)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %s may not be opened: add this user to its group, mostly tss", vault.ErrRefused, v.device)
	case errors.Is(err, tpm2.TPMRCLockout):
		return fmt.Errorf("TPM %s: %w: it is locked after wrong passwords: wait, or tpm2_dictionarylockout --clear-lockout", what, vault.ErrRefused)
	case errors.Is(err, tpm2.TPMRCPolicyFail), errors.Is(err, tpm2.TPMRCValue) && len(v.pcrs) > 0 && what == "sign", errors.Is(err, tpm2.TPMRCPCRChanged):
		return fmt.Errorf("TPM %s: %w: PCRs %v are not what they were when the key was made: firmware, boot loader or kernel have changed; rotate the identity from a backup, or make a new one", what, vault.ErrRefused, v.pcrs)
	case errors.Is(err, tpm2.TPMRCBadAuth), errors.Is(err, tpm2.TPMRCAuthFail):
		return fmt.Errorf("TPM %s: %w: its owner hierarchy has a password: make the storage root key 0x%x with it (tpm2_createprimary, tpm2_evictcontrol)", what, vault.ErrRefused, uint32(parent))
	case errors.Is(err, tpm2.TPMRCIntegrity):
		return fmt.Errorf("TPM %s: %w: the key is of another TPM, or this one was cleared", what, vault.ErrKey)
	case errors.Is(err, vault.ErrKey), errors.Is(err, vault.ErrAlgorithm), errors.Is(err, vault.ErrSignature), errors.Is(err, context.Canceled):
		return err
	}
	return fmt.Errorf("%w: TPM %s at %s: %s", vault.ErrAway, what, v.device, strings.ReplaceAll(err.Error(), "\n", " "))
}

func (v *Vault) selection() tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(v.pcrs...)}}}
}

// policy returns the digest of the policy that the PCRs are as they are now.
func (v *Vault) policy(t transport.TPM) ([]byte, error) {
	session, done, err := tpm2.PolicySession(t, tpm2.TPMAlgSHA256, 16, tpm2.Trial())
	if err != nil {
		return nil, err
	}
	defer func() { _ = done() }()
	if _, err := (tpm2.PolicyPCR{PolicySession: session.Handle(), Pcrs: v.selection()}).Execute(t); err != nil {
		return nil, err
	}
	d, err := tpm2.PolicyGetDigest{PolicySession: session.Handle()}.Execute(t)
	if err != nil {
		return nil, err
	}
	return d.PolicyDigest.Buffer, nil
}

// GenerateSigningKey implements vault.Vault.
func (v *Vault) GenerateSigningKey(ctx context.Context, a vault.KeyAlgorithm) (h vault.Handle, key vault.VerifyingKey, err error) {
	if a != vault.P256 {
		return "", key, fmt.Errorf("TPM: %w: it has P-256 (--algorithm p256), not %s", vault.ErrAlgorithm, a)
	}
	var blob []byte
	err = v.with(ctx, "create key", func(t transport.TPM, srk tpm2.NamedHandle) error {
		template := tpm2.TPMTPublic{
			Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: len(v.pcrs) == 0, SignEncrypt: true, NoDA: true},
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
				CurveID: tpm2.TPMECCNistP256,
				Scheme:  tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
			}),
		}
		if len(v.pcrs) > 0 {
			digest, err := v.policy(t)
			if err != nil {
				return err
			}
			template.AuthPolicy = tpm2.TPM2BDigest{Buffer: digest}
		}
		made, err := tpm2.Create{ParentHandle: srk, InPublic: tpm2.New2B(template)}.Execute(t)
		if err != nil {
			return err
		}
		public, err := made.OutPublic.Contents()
		if err != nil {
			return err
		}
		point, err := public.Unique.ECC()
		if err != nil {
			return err
		}
		b := make([]byte, 65)
		b[0] = 4
		new(big.Int).SetBytes(point.X.Buffer).FillBytes(b[1:33])
		new(big.Int).SetBytes(point.Y.Buffer).FillBytes(b[33:])
		key = vault.VerifyingKey{Algorithm: vault.P256, Bytes: b}
		blob = joined(tpm2.Marshal(made.OutPrivate), tpm2.Marshal(made.OutPublic))
		return vault.CheckPublic(key)
	})
	if err != nil {
		return "", vault.VerifyingKey{}, err
	}
	h, err = v.records.Put(vault.Record{Algorithm: vault.P256, Public: key.Bytes, Blob: blob})
	return h, key, err
}

// joined puts two byte strings into one, and split takes them apart.
func joined(a, b []byte) []byte {
	return append(append(binary.BigEndian.AppendUint32(nil, uint32(len(a))), a...), b...)
}

func split(blob []byte) (a, b []byte, err error) {
	if len(blob) < 4 || uint64(binary.BigEndian.Uint32(blob)) > uint64(len(blob)-4) {
		return nil, nil, fmt.Errorf("%w: what is stored of it is cut short", vault.ErrKey)
	}
	n := 4 + int(binary.BigEndian.Uint32(blob))
	return blob[4:n], blob[n:], nil
}

// VerifyingKey implements vault.Vault. The TPM is not asked.
func (v *Vault) VerifyingKey(ctx context.Context, h vault.Handle) (vault.VerifyingKey, error) {
	return v.records.VerifyingKey(ctx, h)
}

// Sign implements vault.Vault.
func (v *Vault) Sign(ctx context.Context, h vault.Handle, data []byte) (vault.Signature, error) {
	sig := vault.Signature{Algorithm: vault.P256}
	rec, err := v.records.Get(h)
	if err != nil {
		return sig, err
	}
	private, public, err := split(rec.Blob)
	if err != nil {
		return sig, err
	}
	inPrivate, err := tpm2.Unmarshal[tpm2.TPM2BPrivate](private)
	if err != nil {
		return sig, fmt.Errorf("%w: %w", vault.ErrKey, err)
	}
	inPublic, err := tpm2.Unmarshal[tpm2.TPM2BPublic](public)
	if err != nil {
		return sig, fmt.Errorf("%w: %w", vault.ErrKey, err)
	}
	digest := sha256.Sum256(data)
	err = v.with(ctx, "sign", func(t transport.TPM, srk tpm2.NamedHandle) error {
		loaded, err := tpm2.Load{ParentHandle: srk, InPrivate: *inPrivate, InPublic: *inPublic}.Execute(t)
		if err != nil {
			return err
		}
		defer flush(t, loaded.ObjectHandle)
		auth := tpm2.PasswordAuth(nil)
		if len(v.pcrs) > 0 {
			auth = tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(t transport.TPM, session tpm2.TPMISHPolicy, _ tpm2.TPM2BNonce) error {
				_, err := tpm2.PolicyPCR{PolicySession: session, Pcrs: v.selection()}.Execute(t)
				return err
			})
		}
		made, err := tpm2.Sign{
			KeyHandle:  tpm2.AuthHandle{Handle: loaded.ObjectHandle, Name: loaded.Name, Auth: auth},
			Digest:     tpm2.TPM2BDigest{Buffer: digest[:]},
			InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256})},
			Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
		}.Execute(t)
		if err != nil {
			return err
		}
		rs, err := made.Signature.Signature.ECDSA()
		if err != nil {
			return err
		}
		r, s := new(big.Int).SetBytes(rs.SignatureR.Buffer), new(big.Int).SetBytes(rs.SignatureS.Buffer)
		if r.BitLen() > 256 || s.BitLen() > 256 {
			return vault.ErrSignature
		}
		r.FillBytes(sig.Bytes[:32])
		s.FillBytes(sig.Bytes[32:])
		return nil
	})
	return sig, err
}

// DeleteSigningKey implements vault.Vault. The key is in the files alone: without them the TPM cannot use it.
func (v *Vault) DeleteSigningKey(_ context.Context, h vault.Handle) error { return v.records.Delete(h) }
