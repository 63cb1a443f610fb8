package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"sallyport/node/admin"
	"sallyport/routing/bare"
)

func init() { nouns = append(nouns, messageNoun) }

func messageNoun(a *app) *cobra.Command {
	return noun(groupObjects, "message", "Messages to workers, over any number of hops", nil, messageSend(a))
}

func messageSend(a *app) *cobra.Command {
	var t trustFlags
	var from, to string
	var asHex bool
	var timeout time.Duration
	var again retry
	cmd := &cobra.Command{Use: "send MESSAGE --to ROUTE [flags]", Short: "Send a message and print the answer", Example: `  sallyport message send hello --to /node/n1/service/uppercase
  sallyport message send hello --to /node/n1/secure/api/service/echo`, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if to == "" {
				return usageError("the following required arguments were not provided: --to <ROUTE>")
			}
			addr, err := a.route("--to", to)
			if err != nil {
				return err
			}
			payload := bare.AppendString(nil, args[0])
			if asHex {
				if payload, err = hex.DecodeString(args[0]); err != nil {
					return fmt.Errorf("the message %q must be hex with --hex", args[0])
				}
			}
			var reply []byte
			if err := a.retrying(cmd.Context(), again, func() (err error) {
				reply, err = a.sendMessage(cmd.Context(), from, t, admin.MessageRequest{To: addr.String(), Payload: payload, Identity: t.identity, TimeoutMS: timeout.Milliseconds()})
				return err
			}); err != nil {
				return err
			}
			text := hex.EncodeToString(reply)
			if !asHex {
				b, _, err := bare.Bytes(reply)
				if err != nil || !utf8.Valid(b) {
					return withHint(errors.New("the answer is not text"), "add --hex to see its bytes")
				}
				text = string(b)
			}
			return a.print(result{human: text, machine: text})
		}}
	t.add(cmd)
	f := cmd.Flags()
	f.StringVarP(&to, "to", "t", "", "the `ROUTE` to the worker")
	f.StringVarP(&from, "from", "f", "", "the `NODE` to send from (default: one that lives for this command)")
	f.BoolVar(&asHex, "hex", false, "the message and the answer are bytes in hex")
	durationVar(f, &timeout, "timeout", 10*time.Second, "how long to wait for the answer")
	again.add(cmd)
	return cmd
}

func (a *app) sendMessage(ctx context.Context, from string, t trustFlags, r admin.MessageRequest) ([]byte, error) {
	if from != "" {
		c, _, err := a.nodeClient(from)
		if err != nil {
			return nil, err
		}
		const reserve = 5 * time.Second // the node itself keeps to the time
		ctx, cancel := context.WithTimeout(ctx, time.Duration(r.TimeoutMS)*time.Millisecond+reserve)
		defer cancel()
		reply, err := admin.Post[admin.MessageReply](ctx, c, admin.PathMessages, r)
		return reply.Payload, err
	}
	n, _, err := a.embedded(ctx, t.identity, t)
	if err != nil {
		return nil, err
	}
	defer n.Stop()
	r.Identity = ""
	reply, err := n.SendMessage(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("%w", err)
	}
	return reply.Payload, nil
}
