// Package awskms keeps signing keys, of P-256, in AWS KMS. Credentials and region come through the SDK's usual chain: the environment, the files below
// ~/.aws, a role of the machine.
package awskms

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"sallyport/crypto/vault"
)

// Bounds on a request: of one attempt, of the attempts together, and how many there are. Throttled requests, and those that got no answer, are sent
// again after growing pauses.
const (
	attemptTimeout = 5 * time.Second
	totalTimeout   = 20 * time.Second
	attempts       = 5
)

// deletionDays is how long KMS keeps a deleted key, in which it can be taken back; as in the reference.
const deletionDays = 7

// maxRaw is how long a message may be that KMS hashes, in bytes.
const maxRaw = 4096

// description is what KMS shows of a key.
const description = "primary key of a sallyport identity"

var _ vault.Vault = (*Vault)(nil)

// Vault is keys in KMS. What is known of them, key ids and public keys, is in the files of a directory.
type Vault struct {
	records vault.Records

	mu     sync.Mutex
	client *kms.Client
}

// Open makes a vault. KMS is asked when a key is made or used.
func Open(records string) (*Vault, error) {
	r, err := vault.OpenRecords(records)
	if err != nil {
		return nil, err
	}
	return &Vault{records: r}, nil
}

// kms returns the client, made at its first use: the chain of credentials may ask the network.
func (v *Vault) kms(ctx context.Context) (*kms.Client, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.client != nil {
		return v.client, nil
	}
	c, err := config.LoadDefaultConfig(ctx, config.WithRetryMaxAttempts(attempts), config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(attemptTimeout)))
	if err != nil {
		return nil, fmt.Errorf("%w: AWS configuration: %w", vault.ErrRefused, err)
	}
	if c.Region == "" {
		return nil, fmt.Errorf("%w: no AWS region is configured: set AWS_REGION, or a region in ~/.aws/config", vault.ErrRefused)
	}
	v.client = kms.NewFromConfig(c)
	return v.client, nil
}

// do runs a request with the bounds above.
func (v *Vault) do(ctx context.Context, what string, request func(context.Context, *kms.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, totalTimeout)
	defer cancel()
	c, err := v.kms(ctx)
	if err != nil {
		return err
	}
	return explain(what, request(ctx, c))
}

// explain turns an error of the SDK into one line with what to do.
func explain(what string, err error) error {
	if err == nil {
		return nil
	}
	var api smithy.APIError
	var network net.Error
	switch {
	case errors.As(err, &api):
		text := fmt.Sprintf("%s: %s", api.ErrorCode(), strings.ReplaceAll(api.ErrorMessage(), "\n", " "))
		switch code := api.ErrorCode(); {
		case code == "NotFoundException":
			return fmt.Errorf("AWS KMS %s: %w: %s", what, vault.ErrNotFound, text)
		case code == "AccessDeniedException", code == "UnrecognizedClientException", code == "InvalidClientTokenId", code == "IncompleteSignature", code == "MissingAuthenticationToken",
			code == "InvalidSignatureException", code == "ExpiredTokenException", code == "ExpiredToken", code == "AccessDenied", code == "SignatureDoesNotMatch":
			return fmt.Errorf("AWS KMS %s: %w: %s (it needs kms:CreateKey, GetPublicKey, Sign, ScheduleKeyDeletion; aws sts get-caller-identity tells who asks)", what, vault.ErrRefused, text)
		case code == "DisabledException", code == "KMSInvalidStateException", code == "KeyUnavailableException":
			return fmt.Errorf("AWS KMS %s: %w: %s (enable the key, or cancel its deletion)", what, vault.ErrRefused, text)
		case code == "InvalidKeyUsageException", code == "UnsupportedOperationException":
			return fmt.Errorf("AWS KMS %s: %w: %s (a key must be ECC_NIST_P256 with usage SIGN_VERIFY)", what, vault.ErrAlgorithm, text)
		case strings.Contains(code, "Throttl"), code == "LimitExceededException", code == "RequestLimitExceeded", code == "TooManyRequestsException":
			return fmt.Errorf("%w: AWS KMS %s: it is asked too often, %d times in vain: %s", vault.ErrAway, what, attempts, text)
		}
		return fmt.Errorf("%w: AWS KMS %s: %s", vault.ErrAway, what, text)
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network):
		return fmt.Errorf("%w: AWS KMS %s: no answer: %s", vault.ErrAway, what, last(err))
	}
	var credentials interface{ Unwrap() error }
	if errors.As(err, &credentials) && strings.Contains(err.Error(), "credentials") {
		return fmt.Errorf("%w: AWS KMS %s: there are no AWS credentials: set AWS_PROFILE, AWS_ACCESS_KEY_ID, or give the machine a role", vault.ErrRefused, what)
	}
	return fmt.Errorf("%w: AWS KMS %s: %s", vault.ErrAway, what, last(err))
}

// last returns the innermost error's text, in one line.
func last(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return strings.ReplaceAll(err.Error(), "\n", " ")
		}
		err = inner
	}
}

// GenerateSigningKey implements vault.Vault.
func (v *Vault) GenerateSigningKey(ctx context.Context, a vault.KeyAlgorithm) (h vault.Handle, key vault.VerifyingKey, err error) {
	if a != vault.P256 {
		return "", key, fmt.Errorf("AWS KMS: %w: it has P-256 (--algorithm p256), not %s", vault.ErrAlgorithm, a)
	}
	var id string
	err = v.do(ctx, "create key", func(ctx context.Context, c *kms.Client) error {
		out, err := c.CreateKey(ctx, &kms.CreateKeyInput{KeySpec: types.KeySpecEccNistP256, KeyUsage: types.KeyUsageTypeSignVerify, Description: aws.String(description)})
		if err == nil {
			id = aws.ToString(out.KeyMetadata.KeyId)
		}
		return err
	})
	if err != nil {
		return "", key, err
	}
	if h, key, err = v.AdoptSigningKey(ctx, id); err != nil { // nothing half-made stays, as far as that can be seen to
		err = errors.Join(err, v.schedule(context.WithoutCancel(ctx), id))
	}
	return h, key, err
}

// AdoptSigningKey takes a key into use that KMS has, by its id, ARN or alias.
func (v *Vault) AdoptSigningKey(ctx context.Context, id string) (vault.Handle, vault.VerifyingKey, error) {
	var out *kms.GetPublicKeyOutput
	err := v.do(ctx, "get public key "+id, func(ctx context.Context, c *kms.Client) (err error) {
		out, err = c.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: aws.String(id)})
		return err
	})
	if err != nil {
		return "", vault.VerifyingKey{}, err
	}
	parsed, err := x509.ParsePKIXPublicKey(out.PublicKey)
	public, ok := parsed.(*ecdsa.PublicKey)
	if err != nil || !ok || public.Curve != elliptic.P256() || out.KeyUsage != types.KeyUsageTypeSignVerify { // not every service tells the KeySpec
		return "", vault.VerifyingKey{}, fmt.Errorf("AWS KMS key %s: %w: it must be ECC_NIST_P256 for SIGN_VERIFY", id, vault.ErrAlgorithm)
	}
	b, err := public.Bytes()
	key := vault.VerifyingKey{Algorithm: vault.P256, Bytes: b}
	if err == nil {
		err = vault.CheckPublic(key)
	}
	if err != nil {
		return "", vault.VerifyingKey{}, err
	}
	h, err := v.records.Put(vault.Record{Algorithm: vault.P256, Public: b, Name: aws.ToString(out.KeyId)})
	return h, key, err
}

// VerifyingKey implements vault.Vault. KMS is not asked.
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
	// KMS hashes a short message itself. Of a longer one it is given the hash, which comes to the same.
	message, kind := data, types.MessageTypeRaw
	if len(data) > maxRaw {
		digest := sha256.Sum256(data)
		message, kind = digest[:], types.MessageTypeDigest
	}
	var der []byte
	err = v.do(ctx, "sign", func(ctx context.Context, c *kms.Client) error {
		out, err := c.Sign(ctx, &kms.SignInput{
			KeyId: aws.String(rec.Name), Message: message, MessageType: kind, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256,
		})
		if err == nil {
			der = out.Signature
		}
		return err
	})
	if err != nil {
		return sig, err
	}
	var rs struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &rs); err != nil || len(rest) > 0 || rs.R.Sign() <= 0 || rs.S.Sign() <= 0 || rs.R.BitLen() > 256 || rs.S.BitLen() > 256 {
		return sig, fmt.Errorf("AWS KMS: %w: it cannot be read", vault.ErrSignature)
	}
	rs.R.FillBytes(sig.Bytes[:32])
	rs.S.FillBytes(sig.Bytes[32:])
	return sig, nil
}

// DeleteSigningKey implements vault.Vault. KMS deletes the key after seven days.
func (v *Vault) DeleteSigningKey(ctx context.Context, h vault.Handle) error {
	return v.records.Drop(h, func(r vault.Record) error { return v.schedule(ctx, r.Name) })
}

func (v *Vault) schedule(ctx context.Context, id string) error {
	return v.do(ctx, "schedule deletion", func(ctx context.Context, c *kms.Client) error {
		_, err := c.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: aws.String(id), PendingWindowInDays: aws.Int32(deletionDays)})
		return err
	})
}
