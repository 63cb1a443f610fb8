package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"

	"sallyport/crypto/vault/awskms"
)

// deletionDays is how long KMS keeps a deleted key, in which it can be taken back; as in the reference.
const deletionDays = 7

// description is what KMS shows of a key.
const description = "primary key of a sallyport identity"

// service is KMS, which is reached when it is first asked.
type service struct{ client *kms.Client }

// connect makes the client: the chain of credentials may ask the network.
func (k *service) connect(ctx context.Context) error {
	if k.client != nil {
		return nil
	}
	c, err := config.LoadDefaultConfig(ctx, config.WithRetryMaxAttempts(awskms.Attempts),
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(awskms.AttemptTimeout)))
	if err != nil {
		return &fault{awskms.CodeRefused, "AWS configuration: " + oneLine(err.Error())}
	}
	if c.Region == "" {
		return &fault{awskms.CodeRefused, "no AWS region is configured: set AWS_REGION, or a region in ~/.aws/config"}
	}
	k.client = kms.NewFromConfig(c)
	return nil
}

// fault is an error with its code.
type fault struct{ code, text string }

func (f *fault) Error() string { return f.text }

// do does what a request asks.
func (k *service) do(ctx context.Context, r awskms.Request) awskms.Response {
	ctx, cancel := context.WithTimeout(ctx, awskms.TotalTimeout)
	defer cancel()
	resp, err := k.perform(ctx, r)
	if err == nil {
		return resp
	}
	var f *fault
	if !errors.As(err, &f) {
		f = explain(err)
	}
	return awskms.Response{Code: f.code, Text: f.text}
}

func (k *service) perform(ctx context.Context, r awskms.Request) (resp awskms.Response, err error) {
	if err := k.connect(ctx); err != nil {
		return resp, err
	}
	switch r.Op {
	case awskms.OpCreate:
		out, err := k.client.CreateKey(ctx, &kms.CreateKeyInput{
			KeySpec: types.KeySpecEccNistP256, KeyUsage: types.KeyUsageTypeSignVerify, Description: aws.String(description),
		})
		if err != nil {
			return resp, err
		}
		resp.ID = aws.ToString(out.KeyMetadata.KeyId)
	case awskms.OpPublic:
		out, err := k.client.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: aws.String(r.ID)})
		if err != nil {
			return resp, err
		}
		resp.ID, resp.Public, resp.Signs = aws.ToString(out.KeyId), out.PublicKey, out.KeyUsage == types.KeyUsageTypeSignVerify
	case awskms.OpSign:
		kind := types.MessageTypeRaw
		if r.Hashed {
			kind = types.MessageTypeDigest
		}
		out, err := k.client.Sign(ctx, &kms.SignInput{
			KeyId: aws.String(r.ID), Message: r.Data, MessageType: kind, SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256,
		})
		if err != nil {
			return resp, err
		}
		resp.Signature = out.Signature
	case awskms.OpSchedule:
		_, err = k.client.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: aws.String(r.ID), PendingWindowInDays: aws.Int32(deletionDays)})
	default:
		err = &fault{awskms.CodeAway, fmt.Sprintf("this program does not know %q: it is of another version than sallyport", r.Op)}
	}
	return resp, err
}

// explain turns an error of the SDK into one line with what to do.
func explain(err error) *fault {
	var api smithy.APIError
	var network net.Error
	switch {
	case errors.As(err, &api):
		text := api.ErrorCode() + ": " + oneLine(api.ErrorMessage())
		switch code := api.ErrorCode(); {
		case code == "NotFoundException":
			return &fault{awskms.CodeNotFound, text}
		case code == "AccessDeniedException", code == "UnrecognizedClientException", code == "InvalidClientTokenId", code == "IncompleteSignature", code == "MissingAuthenticationToken",
			code == "InvalidSignatureException", code == "ExpiredTokenException", code == "ExpiredToken", code == "AccessDenied", code == "SignatureDoesNotMatch":
			return &fault{awskms.CodeRefused, text + " (it needs kms:CreateKey, GetPublicKey, Sign, ScheduleKeyDeletion; aws sts get-caller-identity tells who asks)"}
		case code == "DisabledException", code == "KMSInvalidStateException", code == "KeyUnavailableException":
			return &fault{awskms.CodeRefused, text + " (enable the key, or cancel its deletion)"}
		case code == "InvalidKeyUsageException", code == "UnsupportedOperationException":
			return &fault{awskms.CodeAlgorithm, text + " (a key must be ECC_NIST_P256 with usage SIGN_VERIFY)"}
		case strings.Contains(code, "Throttl"), code == "LimitExceededException", code == "RequestLimitExceeded", code == "TooManyRequestsException":
			return &fault{awskms.CodeAway, fmt.Sprintf("it is asked too often, %d times in vain: %s", awskms.Attempts, text)}
		}
		return &fault{awskms.CodeAway, text}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network):
		return &fault{awskms.CodeAway, "no answer: " + last(err)}
	}
	if errors.Unwrap(err) != nil && strings.Contains(err.Error(), "credentials") {
		return &fault{awskms.CodeRefused, "there are no AWS credentials: set AWS_PROFILE, AWS_ACCESS_KEY_ID, or give the machine a role"}
	}
	return &fault{awskms.CodeAway, last(err)}
}

// last returns the innermost error's text, in one line.
func last(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return oneLine(err.Error())
		}
		err = inner
	}
}

func oneLine(text string) string { return strings.ReplaceAll(text, "\n", " ") }
