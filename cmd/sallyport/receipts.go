//go:build !small

package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/records/receipts"
)

func init() { nouns = append(nouns, receiptsCommand) }

func receiptsCommand(a *app) *cobra.Command {
	return noun(groupOther, "receipts", "Signed records of connections (docs/records.md)", nil, receiptsVerify(a))
}

func receiptsVerify(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "verify FILE [OTHER]", Short: "Verify a node's receipts, and compare them with those of the other end",
		Example: `  sallyport receipts verify bank.jsonl
  sallyport receipts verify analysis.jsonl bank.jsonl`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			type said struct {
				File     string `json:"file"`
				Identity string `json:"identity"`
				Records  int    `json:"records"`
				Unsigned int    `json:"unsigned"`
			}
			out := struct {
				Files      []said               `json:"files"`
				Comparison *receipts.Comparison `json:"comparison,omitempty"`
			}{}
			var files []*receipts.File
			var text strings.Builder
			signed := true
			for _, path := range args {
				f, err := readReceipts(cmd.Context(), path)
				if err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
				files = append(files, f)
				out.Files = append(out.Files, said{path, f.Identity, len(f.Records), f.Unsigned})
				who := "nobody: these are records without receipts (node create --receipts)"
				if f.Identity != "" {
					who = f.Identity
				}
				fmt.Fprintf(&text, "%s: %s, %d not signed, the others signed by %s\n", path, plural(len(f.Records), "record"), f.Unsigned, who)
				signed = signed && f.Unsigned == 0
			}
			agree := true
			if len(files) == 2 {
				c := receipts.Compare(files[0], files[1])
				out.Comparison, agree = &c, len(c.Differences) == 0
				fmt.Fprintf(&text, "both describe %s alike, %d of them cut short; %d are of others, or of a time that the other file does not cover; %d differ\n",
					plural(c.Agreed, "connection"), c.CutShort, c.Others, len(c.Differences))
				for i, d := range c.Differences {
					if i == 100 {
						fmt.Fprintf(&text, "  and %d more\n", len(c.Differences)-i)
						break
					}
					fmt.Fprintf(&text, "  %s  %s\n", d.ID, d.What)
				}
			}
			if err := a.print(result{human: text.String(), machine: strings.TrimSpace(text.String()), json: out}); err != nil {
				return err
			}
			if !signed || !agree {
				return exitCode(exitDiffers)
			}
			return nil
		},
	}
}

func readReceipts(ctx context.Context, path string) (*receipts.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return receipts.Read(ctx, f)
}
